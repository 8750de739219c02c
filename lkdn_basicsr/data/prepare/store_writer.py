"""An LMDB folder that is written image by image, survives SIGKILL, and gets its name when it is complete."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any, Self

import lmdb

from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.data.raw_store import HEADER, read_index, write_index
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import partial_folder, replace, sync_folder


def finished_settings(path: str) -> dict[str, Any] | None:
    """Return the settings of the finished store ``path``; None if it does not exist."""
    if not os.path.lexists(path):
        return None
    if not os.path.exists(os.path.join(path, 'index.json')):
        how = 'move it away or choose another --out.'
        raise InputError(f'{path} exists and was not made by lkdn_basicsr.prepare; {how}')
    return read_index(path).settings


def partial_settings(path: str) -> dict[str, Any] | None:
    """Return the settings of the partial store of ``path``; None if it was not begun."""
    partial = partial_folder(path)
    try:
        with open(os.path.join(partial, 'settings.json'), encoding='utf-8') as file:
            settings = json.load(file)
        if isinstance(settings, dict):
            return settings
    except (FileNotFoundError, NotADirectoryError):
        has_index = os.path.exists(os.path.join(partial, 'index.json'))
        return read_index(partial).settings if has_index else None
    except (ValueError, RecursionError):
        pass
    raise InputError(f'{partial}/settings.json is damaged; delete {partial} to begin again.')


def is_finished(path: str, settings: dict[str, Any]) -> bool:
    """Return whether the store ``path`` is complete; raise InputError if it was made or begun with other settings."""
    finished = finished_settings(path)
    found = finished or partial_settings(path) or settings
    changed = [name for name in sorted(found.keys() | settings.keys()) if found.get(name) != settings.get(name)]
    if changed:
        what = ', '.join(f'{name} {found.get(name)}, now {settings.get(name)}' for name in changed)
        what = what.replace('pictures ', 'images ')  # the key of the first release
        where = path if finished else partial_folder(path)
        how = 'use the same ones, choose another --out, or delete it.'
        raise InputError(f'{where} was made with other settings ({what}); {how}')
    return finished is not None


class StoreWriter:
    """Writes the store ``path`` inside its `partial_folder`; a context manager.

    LMDB's commits are the journal: what was committed is found by the next writer with the same settings. The folder
    of the store must be locked.

    Args:
        settings: JSON values, see `is_finished`.
        map_size: Maximum size of the data in bytes. Address space only, not disk.

    Raises:
        InputError: The LMDB cannot be written, or is damaged.
        OSError: The other files cannot be written.
    """

    def __init__(self, path: str, settings: dict[str, Any], map_size: int) -> None:
        self.path, self.settings, self.map_size = path, settings, map_size
        self.partial = partial_folder(path)
        self._data = os.path.join(self.partial, 'data.mdb')

    def __enter__(self) -> Self:
        self._begin()
        with self._report_errors():
            # Not WRITEMAP: on a full disk that would end in a bus error, where a plain write fails with an exception.
            self._environment = lmdb.open(self.partial, map_size=self.map_size, lock=False, readahead=False)
            self._transaction = self._environment.begin(write=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _begin(self) -> None:
        os.makedirs(self.partial, exist_ok=True)
        if partial_settings(self.path) is None:
            # Killed before the settings were written: nothing in the folder can be trusted, and nothing is of value.
            self._remove('data.mdb')
            replace(os.path.join(self.partial, 'settings.json'), json.dumps(self.settings).encode())
        self._locate()

    def _locate(self) -> dict[bytes, tuple[int, int]]:
        """Return where the values are; LMDB would end the process with a signal where the file is cut short."""
        try:
            return locate(self._data)[0] if os.path.exists(self._data) and os.path.getsize(self._data) else {}
        except ValueError as error:
            raise InputError(f'{self._data} is damaged ({error}); delete {self.partial} to begin again.') from None

    def committed(self) -> int:
        """Return the number of entries that earlier writers have committed."""
        return self._environment.stat()['entries']

    def put(self, key: bytes, value: memoryview) -> None:
        """Add an entry; it is safe once `commit` has returned."""
        with self._report_errors():
            self._transaction.put(key, value)

    def commit(self) -> None:
        """Flush all entries to the disk."""
        with self._report_errors():
            self._transaction.commit()
            self._transaction = self._environment.begin(write=True)

    def close(self) -> None:
        """Close the LMDB; entries that were not committed are dropped."""
        self._transaction.abort()
        self._environment.close()

    def read_heads(self) -> list[tuple[bytes, bytes]]:
        """Return key and first bytes, the size of a header, of all entries in the closed LMDB, sorted by key."""
        heads = []
        with open(self._data, 'rb', buffering=0) as file:
            for key, (start, _) in self._locate().items():
                file.seek(start)
                heads.append((key, file.read(HEADER.size)))
        return heads

    def finish(self, index: dict[str, Any], texts: dict[str, str]) -> None:
        """Write ``index.json`` and text files (name to content) next to the closed LMDB, and rename the folder."""
        head = {name: self.settings[name] for name in ('format', 'version', 'role', 'scale')}
        write_index(self.partial, {**head, **index, 'settings': self.settings})
        for name, text in texts.items():
            replace(os.path.join(self.partial, name), text.encode())
        # If it is interrupted from here on, the settings are found in the index. Release 0.1 left the last two.
        self._remove('settings.json', 'settings.tmp', 'lock')
        sync_folder(self.partial)
        os.rename(self.partial, self.path)
        sync_folder(os.path.dirname(self.path))

    def _remove(self, *names: str) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.partial, name))

    @contextlib.contextmanager
    def _report_errors(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            # LMDB reports a write that was cut short as an input/output error; the free space shows the reason.
            free = shutil.disk_usage(self.partial).free
            reason = f'the disk is full, {free / 1e6:,.0f} MB are left; make room' if free < 64 << 20 else error
            how = 'then run the same command again to resume.'
            raise InputError(f'{self.partial} could not be written: {reason}, {how}') from None

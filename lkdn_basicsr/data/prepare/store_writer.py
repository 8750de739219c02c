"""An LMDB folder that is written picture by picture, survives SIGKILL, and gets its name when it is complete."""

import contextlib
import errno
import fcntl
import json
import os
import shutil

import lmdb

from lkdn_basicsr.data.lmdb_file import locate
from lkdn_basicsr.data.raw_store import HEADER, read_index, write_index
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import sync_folder

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StoreWriter:
    """Writes the store ``path`` inside a hidden folder beside it, ``.<name>.partial``.

    LMDB's commits are the journal: what was committed is found again by the next writer with the same settings. The
    lock is the process's own, so that it ends with it however it ends.

    Args:
        path (str): The finished store's folder.
        settings (dict): JSON values. A store begun or finished with other settings is refused, not mixed.

    Raises:
        InputError: The store exists, or was begun, with other settings, or another process is writing it.
    """

    def __init__(self, path, settings):
        self.path = path
        self.settings = settings
        self.partial = os.path.join(os.path.dirname(path), f'.{os.path.basename(path)}.partial')
        self.finished = finished_settings(path) is not None
        if self.finished:
            refuse_other_settings(path, finished_settings(path), settings)
        elif begun_settings(path) is not None:
            refuse_other_settings(self.partial, begun_settings(path), settings)
        self._environment = self._transaction = self._lock = None

    def open(self, map_size):
        """Create or continue the partial store.

        Args:
            map_size (int): Bytes that its data may take at most. Address space only, not disk.

        Returns:
            int: How many entries earlier writers have committed.
        """
        try:
            self._create()
        except OSError as error:
            raise InputError(
                f'{self.partial} cannot be written ({error.strerror}); make it writable or choose another --out.'
            ) from None
        # Not WRITEMAP: on a full disk that would end in a bus error, where a plain write fails with an exception.
        with self._telling():
            self._environment = lmdb.open(self.partial, map_size=map_size, lock=False, readahead=False)
            self._transaction = self._environment.begin(write=True)
        return self._environment.stat()['entries']

    def _create(self):
        os.makedirs(self.partial, exist_ok=True)
        self._lock = open(os.path.join(self.partial, 'lock'), 'w')
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f'{self.path} is being written by another process; wait for it to end.') from None
        if begun_settings(self.path) is None:
            # Killed before the settings were down: nothing in the folder can be trusted, and nothing of value is there.
            self._remove('data.mdb')
            temporary = os.path.join(self.partial, 'settings.tmp')
            with open(temporary, 'w', encoding='utf-8') as file:
                json.dump(self.settings, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, os.path.join(self.partial, 'settings.json'))

    def put(self, key, value):
        """Add an entry; it counts once `commit` returned."""
        with self._telling():
            self._transaction.put(key, value)

    def commit(self):
        """Flush to disk what was put."""
        with self._telling():
            self._transaction.commit()
            self._transaction = self._environment.begin(write=True)

    def heads(self):
        """The key and the first bytes, a header's size, of all entries, in order of their keys.

        Nothing can be put any more.
        """
        self.commit()
        self.close()
        data = os.path.join(self.partial, 'data.mdb')
        with self._telling(), open(data, 'rb') as file:
            return [(key, os.pread(file.fileno(), HEADER.size, start)) for key, (start, _) in locate(data)[0].items()]

    def finish(self, index, texts=None):
        """Write ``index.json`` and other small files, and give the store its name; to be called after `heads`.

        Args:
            index (dict): What `store.write_index` is to write beside the settings, and their most telling members.
            texts (dict[str, str] | None): Other files to write: name to content.
        """
        with self._telling():
            head = {name: self.settings[name] for name in ('format', 'version', 'role', 'scale')}
            write_index(self.partial, {**head, **index, 'settings': self.settings})
            for name, text in (texts or {}).items():
                with open(os.path.join(self.partial, name), 'w', encoding='utf-8') as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            # Interrupted from here on, the folder is known by the settings in its index.
            self._remove('settings.json', 'settings.tmp', 'lock')
            sync_folder(self.partial)
            os.rename(self.partial, self.path)
            sync_folder(os.path.dirname(self.path))
        self._lock.close()
        self.finished = True

    def _remove(self, *names):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(self.partial, name))

    def close(self):
        """Let go of the files; what was not committed is dropped."""
        if self._environment is not None:
            self._transaction.abort()
            self._environment.close()
            self._environment = self._transaction = None

    @contextlib.contextmanager
    def _telling(self):
        try:
            yield
        except (OSError, ValueError, lmdb.Error) as error:
            # LMDB calls a write that was cut short an input/output error; the free space tells why it was.
            free = shutil.disk_usage(self.partial).free
            full = getattr(error, 'errno', None) in DISK_FULL or free < 64 << 20
            reason = f'the disk is full, {free / 1e6:,.0f} MB are left' if full else error
            raise InputError(
                f'{self.partial} could not be written ({reason}); make room, then run the same command '
                'again to go on where it stopped.'
            ) from None


def refuse_other_settings(path, found, asked):
    """Raise `InputError` naming what differs, unless nothing does."""
    differing = [name for name in sorted(found.keys() | asked.keys()) if found.get(name) != asked.get(name)]
    if differing:
        what = ', '.join(f'{name} {found.get(name)}, now {asked.get(name)}' for name in differing)
        raise InputError(
            f'{path} was made with other settings ({what}); ask for the same ones, choose another --out, or delete it.'
        )


def finished_settings(path):
    """The settings of the finished store ``path``; None where there is none.

    Raises:
        InputError: Something else bears the name.
    """
    if not os.path.lexists(path):
        return None
    if not os.path.exists(os.path.join(path, 'index.json')):
        raise InputError(f'{path} exists and was not made by prepare_df2k.py; move it away or choose another --out.')
    return read_index(path)['settings']


def begun_settings(path):
    """The settings of the partial store behind ``path``; None where none was begun."""
    partial = os.path.join(os.path.dirname(path), f'.{os.path.basename(path)}.partial')
    try:
        with open(os.path.join(partial, 'settings.json'), encoding='utf-8') as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        has_index = os.path.exists(os.path.join(partial, 'index.json'))
        return read_index(partial)['settings'] if has_index else None
    except ValueError:
        raise InputError(f'{partial}/settings.json is damaged; delete {partial} to begin again.') from None

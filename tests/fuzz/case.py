"""One case: a command, what is changed before it runs, and what is wrong with how it ended."""

import contextlib
import hashlib
import os
import re
import resource
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz import base
from tests.fuzz.commands import COMMANDS, NEVER, Command, allowed_changes
from tests.fuzz.mutations import change_arguments, mutate_file, replace_by, shown
from tests.fuzz.process import Outcome, fork

ERROR = re.compile(r'python -m lkdn_basicsr[\w.]*( \w+)?: error: \S')
ARCHIVED = re.compile(r'_archived_\d+_\d+')
OUTPUTS = 'experiments experiments/run tb_logger tb_logger/run results comparison study new bench'.split()
MAX_MESSAGE = 10_000  # characters


@dataclass
class Result:
    """What a case did, and what is wrong with it."""

    command: Command
    line: list[str]  # the arguments, after changes
    changes: list[str]
    outcome: Outcome
    problems: list[str]


def run_case(seed: int, number: int, folder: Path, original: Path, timeout: float) -> Result:
    """Run a case in ``folder/home``, a new copy of the folder ``original``. The same numbers give the same case."""
    rng = Random(f'{seed}:{number}')
    command = rng.choice(COMMANDS)
    home, line, changes, limit = folder / 'home', command.line.split(), [], None
    shutil.copytree(original, home, symlinks=True)
    with contextlib.chdir(home):
        for kind in rng.choices(('file', 'arguments', 'output', 'limit'), (12, 3, 1, 2), k=rng.choice((1, 1, 1, 2))):
            if kind == 'file':
                changes.append(_change_a_file(rng, command, bool(changes)))
            elif kind == 'arguments':
                changes.append(change_arguments(rng, line))
            elif kind == 'output':
                changes.append(_change_an_output(rng))
            else:
                limit = rng.choice(list(LIMITS))
    before = snapshot(folder)
    outcome = fork(lambda: base.run(line) if limit is None else (LIMITS[limit](), base.run(line)), home, timeout)
    problems = judge(outcome, timeout)
    problems += compare_files(line, outcome, before, snapshot(folder), may_stop=limit is not None)
    return Result(command, line, changes + [limit] * (limit is not None), outcome, problems)


def _change_a_file(rng: Random, command: Command, is_second: bool) -> str:
    files = [path for path in sorted(Path().glob(rng.choice(command.reads))) if path.is_file()]
    try:
        return mutate_file(rng, rng.choice(files))
    except Exception:
        if not is_second:  # else the first has removed or damaged it
            raise
        return 'nothing else'


def _change_an_output(rng: Random) -> str:
    """Replace a folder that a command may write to, or make all folders read-only."""
    if rng.random() < 0.2:
        set_mode(Path(), 0o555)
        return 'folders are read-only'
    return replace_by(rng, Path(rng.choice(OUTPUTS)))


def set_mode(folder: Path, mode: int) -> None:
    """Set the permissions of a folder and the folders below it."""
    os.chmod(folder, mode)
    for root, folders, _ in os.walk(folder):  # lists a folder after its permissions were set
        for path in (os.path.join(root, name) for name in folders):
            if not os.path.islink(path):
                os.chmod(path, mode)


def _limit_files(size: int) -> None:
    """Limit the size of files, with the same effect as a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _limit_open_files(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def _close_pipe() -> None:
    """Make the standard output a pipe that nobody reads."""
    read, write = os.pipe()
    os.dup2(write, 1)
    os.close(read)


def _fill_output() -> None:
    os.dup2(os.open('/dev/full', os.O_WRONLY), 1)


# What a process may run out of, at any moment.
LIMITS: dict[str, Callable[[], None]] = {
    **{f'files of at most {size} bytes': partial(_limit_files, size) for size in (0, 200, 20_000, 80_000)},
    **{f'at most {count} open files': partial(_limit_open_files, count) for count in (12, 16, 24, 40)},
    'nobody reads the output': _close_pipe,
    'the output is on a full disk': _fill_output,
}


def judge(outcome: Outcome, timeout: float) -> list[str]:
    """Return what is wrong with the exit status and the output of a command."""
    status, text = outcome.status, outcome.stdout + outcome.stderr
    if status is None:
        return [] if 'Start training' in text else [f'no answer within {timeout:g} s']  # it may have 1e9 iterations
    problems = []
    if 'Traceback' in text:
        last = [line for line in text.rpartition('Traceback')[2].splitlines() if re.match(r'\w[\w.]*(:|$)', line)]
        problems.append(f'traceback: {last[0] if last else ""}')
    if status not in (0, 1, 2):
        problems.append(f'exit status {status}')
    elif status and not problems:
        # What continues a message is indented, for example a list of damaged images.
        lines = [line for line in outcome.stderr.splitlines() if line.strip() and not line.startswith('  ')]
        last = lines[-1] if lines else 'nothing'
        if not ERROR.match(last):
            problems.append(f'the last line is not an error: {last}')
        elif len(last) > MAX_MESSAGE:
            problems.append(f'the message has {len(last)} characters')
    return problems


def snapshot(folder: Path) -> dict[str, str]:
    """Return what is below a folder, by its path: the kind, and the contents or the target. Lock files do not count."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(root, name)
            mode = os.lstat(path).st_mode
            contents = ''
            if stat.S_ISREG(mode):
                with contextlib.suppress(PermissionError), open(path, 'rb') as file:
                    contents = hashlib.file_digest(file, 'sha1').hexdigest()
            elif stat.S_ISLNK(mode):
                contents = os.readlink(path)
            if not name.endswith('.lock') or not stat.S_ISREG(mode):
                found[os.path.relpath(path, folder / 'home')] = f'{stat.filemode(mode)[0]} {contents}'
    return found


def compare_files(
    line: list[str], outcome: Outcome, before: dict[str, str], after: dict[str, str], may_stop: bool = False
) -> list[str]:
    """Return what a command did to files that it must not do.

    Args:
        line: The arguments of the command.
        before, after: From :func:`snapshot`.
        may_stop: The command may fail at any moment. Earlier files may then be moved aside, but not be lost.
    """
    start, writes = allowed_changes(line)
    succeeded = outcome.status == 0 or may_stop
    started = start != NEVER and (succeeded or re.search(start, outcome.stdout + outcome.stderr))
    moved = {ARCHIVED.sub('', path): kind for path, kind in after.items() if ARCHIVED.search(path)}
    allowed = {path for path, kind in before.items() if moved.get(path) == kind or re.match(writes, path)}
    lost = {path for path, kind in before.items() if after.get(path) != kind} - (allowed if started else set())
    created = set() if started else after.keys() - before.keys()
    found = {'changed': lost & after.keys(), 'removed': lost - after.keys(), 'created': created}
    return [f'{len(paths)} files {verb}: {shown(min(paths))}' for verb, paths in found.items() if paths]

"""A part of the fuzzer, and that it notices what it looks for."""

import subprocess
import sys

import pytest

from tests.fuzz.case import compare_files, judge
from tests.fuzz.commands import COMMANDS
from tests.fuzz.process import Outcome
from tests.support.runs import ROOT

ERROR = 'python -m lkdn_basicsr.train: error: train.yml is empty'


@pytest.mark.slow
def test_commands_survive_changed_files():
    """Runs a few cases of ``python -m tests.fuzz``; its message has the command that runs a failed one again."""
    command = [sys.executable, '-m', 'tests.fuzz', '--cases', '30', '--timeout', '300']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '30 cases' in done.stdout


@pytest.mark.parametrize(
    'status, stdout, stderr, problem',
    [
        (0, 'INFO: done', '', None),
        (1, '', f'INFO: loading\n{ERROR}\n', None),
        (1, '', f'{ERROR}\n  00.png: damaged\n', None),
        (2, '', 'usage: x\npython -m lkdn_basicsr.prepare train: error: no --out', None),
        (1, '', f'{ERROR}\nbye', 'the last line is not an error: bye'),
        (1, '', '', 'the last line is not an error: nothing'),
        (1, '', 'Traceback (most recent call last):\n  File "x.py", line 1\nKeyError: 1', 'traceback: KeyError: 1'),
        (0, '', 'Exception ignored in:\nTraceback (most recent call last):\nOSError', 'traceback: OSError'),
        (-11, '', '', 'exit status -11'),
        (120, '', '', 'exit status 120'),
        (None, '', '', 'no answer within 20 s'),
    ],
)
def test_wrong_ends_are_noticed(status, stdout, stderr, problem):
    assert judge(Outcome(status, 1, stdout, stderr), 20) == ([problem] if problem else [])


RUN = 'experiments/run/1.state'
FILES = {RUN: '- 1', 'train.yml': '- 2', 'study/table.md': '- 3'}
ARCHIVED = 'experiments/run_archived_20260101_000000/1.state'
MOVED = {ARCHIVED: '- 1', 'train.yml': '- 2', 'study/table.md': '- 3'}


@pytest.mark.parametrize(
    'line, status, stdout, after, problems',
    [
        ('train', 1, '', FILES, []),
        ('train', 1, '', FILES | {'x': ''}, ['1 files created: x']),
        ('train', 0, '', MOVED | {'x': ''}, []),
        ('train', 1, '', MOVED, [f'1 files removed: {RUN}', f'1 files created: {ARCHIVED}']),
        ('train', 1, 'Start training', MOVED, []),
        ('train', 0, '', FILES | {'train.yml': '- 4'}, ['1 files changed: train.yml']),
        ('train', 0, '', FILES | {RUN: '- 4'}, [f'1 files changed: {RUN}']),
        ('train --auto_resume', 0, '', FILES | {RUN: '- 4'}, []),
        ('train --check', 0, '', FILES | {'x': ''}, ['1 files created: x']),
        ('study.__main__', 0, '', FILES | {'study/table.md': '- 4'}, []),
        ('study.__main__', 1, '', FILES | {'study/table.md': '- 4'}, ['1 files changed: study/table.md']),
    ],
)
def test_changed_files_are_noticed(line, status, stdout, after, problems):
    assert compare_files(line.split(), Outcome(status, 1, stdout, ''), FILES, after) == problems


def test_all_modules_are_fuzzed():
    assert {command.name for command in COMMANDS} >= {'train', 'train --check', 'test', 'compare', 'study', 'prepare'}

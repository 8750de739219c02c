import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from lkdn_basicsr import prepare
from tests.support.images import write_images

ROOT = Path(__file__).parents[1]


def call(capsys, *arguments):
    """Run the command in this process; return its exit status, output and errors."""
    try:
        prepare.main([str(argument) for argument in arguments])
        status = 0
    except SystemExit as error:
        status = error.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    return status, *capsys.readouterr()


def test_stores_are_made_and_verified_and_errors_are_one_line(tmp_path, capsys):
    write_images(tmp_path / 'hr', 'abcd')
    folders = '--hr', tmp_path / 'hr', '--out', tmp_path / 'out'
    status, out, err = call(capsys, 'train', *folders, '--scale', 2, 4, '--workers', 1)
    assert status == 0 and 'LR_bicubic_X2.lmdb: 4 images' in out and not err
    status, out, err = call(capsys, 'verify', tmp_path / 'out/HR.lmdb', tmp_path / 'nowhere')
    assert status == 1 and 'HR.lmdb is intact' in out
    assert err.splitlines()[-1].startswith(f'{prepare.PROG}: error: {tmp_path}/nowhere') and 'Traceback' not in err


@pytest.mark.parametrize('arguments', [('train', '--workers', 1), ('benchmark',)])
def test_a_terminal_gets_progress_bars(tmp_path, capsys, monkeypatch, arguments):
    write_images(tmp_path / 'hr', 'ab')
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    status, _, err = call(capsys, *arguments, '--hr', tmp_path / 'hr', '--out', tmp_path / 'out')
    assert status == 0 and 'Checking: 100%' in err and 'Preparing: 100%' in err


def test_benchmark_folders_are_made(tmp_path, capsys):
    write_images(tmp_path / 'hr', 'ab')
    status, out, _ = call(capsys, 'benchmark', '--hr', tmp_path / 'hr', '--out', tmp_path / 'Set', '--scale', 3)
    assert status == 0 and 'LRbicx3: 2 images' in out
    assert sorted(path.name for path in tmp_path.glob('Set/*')) == ['.lock', 'GTmod3', 'LRbicx3']


WRONG = """

train
train --out x
train --hr a --div2k b --out x
train --div2k a --lr b --out x
train --hr a --out x --scale 5
train --hr a --out x --step 0
train --hr a --out x --ste 16
benchmark --hr a
verify"""


@pytest.mark.parametrize('arguments', WRONG.split('\n')[1:])
def test_wrong_arguments_are_refused(capsys, arguments):
    status, _, err = call(capsys, *arguments.split())
    assert status == 2 and 'error:' in err


def test_help_lists_the_subcommands_with_an_example_each(capsys):
    status, out, _ = call(capsys, '--help')
    assert status == 0
    for name in ('train', 'benchmark', 'verify'):
        assert f'{prepare.PROG} {name} ' in out
    assert '--allow-missing' in call(capsys, 'train', '--help')[1]


def test_an_interrupt_ends_without_a_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prepare, '_verify', Mock(side_effect=KeyboardInterrupt))
    status, _, err = call(capsys, 'verify', tmp_path)
    assert status == 130 and 'run the same command again' in err


@pytest.mark.slow
@pytest.mark.parametrize('script, flag', [('prepare_df2k.py', '--allow-missing'), ('prepare_benchmark.py', '--edges')])
def test_the_scripts_call_the_command(script, flag):
    environment = {'PYTHONPATH': str(ROOT), 'PATH': ''}
    command = [sys.executable, ROOT / 'scripts' / script]
    done = subprocess.run([*command, '--help'], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0 and flag in done.stdout
    if script == 'prepare_df2k.py':
        done = subprocess.run([*command, 'verify', 'nowhere'], capture_output=True, text=True, env=environment)
        assert done.returncode == 1 and 'nowhere is not a store' in done.stderr

"""The built wheel, installed in a folder of its own, does what the README shows from any other folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lkdn_basicsr.__main__ import COMMANDS, main

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from a copy, because setuptools would pack what earlier builds left in ``build/``."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for folder in ('lkdn_basicsr', 'options'):
        shutil.copytree(REPO / folder, source / folder, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(REPO / name, source)
    pip('wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', out, source)
    return next(out.glob('*.whl'))


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    pip('install', '--no-deps', '--no-index', '--target', folder, wheel)
    return folder


def pip(*args):
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet', *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run(path, folder, command, status=0):
    """Run ``python COMMAND`` in a folder, with ``path`` as the module search path, and check the exit status."""
    env = os.environ | {'PYTHONPATH': str(path), 'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run([sys.executable, *command.split()], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == status and 'Traceback' not in done.stderr, done.stderr
    return done


@pytest.mark.slow
def test_contains_every_module_option_file_and_template(wheel):
    expected = {f'lkdn_basicsr/shipped_{path.relative_to(REPO)}' for path in (REPO / 'options').rglob('*.yml')}
    for pattern in ('**/*.py', 'evaluate/*.yml', 'report/*.html'):
        expected |= {f'{path.relative_to(REPO)}' for path in (REPO / 'lkdn_basicsr').glob(pattern)}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    assert packed == expected > {'lkdn_basicsr/evaluate/published.yml', 'lkdn_basicsr/report/page.html'}


@pytest.mark.slow
def test_lists_the_commands(site, tmp_path):
    listed = run(site, tmp_path, '-m lkdn_basicsr').stdout
    for name, purpose in COMMANDS.items():
        assert f'python -m lkdn_basicsr.{name} ' in listed and purpose in listed


@pytest.mark.slow
@pytest.mark.parametrize('name', [name for name in COMMANDS if name != 'options.docs'])
def test_help_of_each_command(site, tmp_path, name):
    done = run(site, tmp_path, f'-m lkdn_basicsr.{name} --help')
    assert f'usage: python -m lkdn_basicsr.{name}' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train_LKDN_x4.yml', 'options/train_LKDN_x4.yml', 'ablation/table1/1_none.yml'])
def test_finds_shipped_option_files_by_name(site, tmp_path, name):
    done = run(site, tmp_path, f'-m lkdn_basicsr.train -opt {name} --check', status=1)
    (error,) = [line for line in done.stderr.splitlines() if 'error:' in line]
    assert str(site / 'lkdn_basicsr/shipped_options') in error and 'datasets/DF2K' in error
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    'command',
    [
        'train -opt train_LKDN_x4.yml',
        'test -opt test_LKDN_x4.yml',
        'prepare benchmark --hr HR --out Set5',
        'compare --models LKDN_x4.pth --sets Set5 --out out',
        'study ablation/table3 --iters 100 --out out',
    ],
)
def test_missing_library_of_opencv_is_reported_in_one_line(site, tmp_path, command):
    (tmp_path / 'cv2.py').write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    done = run(f'{tmp_path}{os.pathsep}{site}', tmp_path, f'-m lkdn_basicsr.{command}', status=1)
    prog = f'python -m lkdn_basicsr.{command.split()[0]}'
    assert done.stderr.startswith(f'{prog}: error: OpenCV does not load (libGL.so.1: ') and done.stdout == ''
    assert 'pip install opencv-python-headless' in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.slow
def test_reads_its_data_files(site, tmp_path):
    code = 'from lkdn_basicsr.evaluate import published as p; print(p.__file__, len(p.read(4, ["Set5"])))'
    (tmp_path / 'read.py').write_text(code)
    file, count = run(site, tmp_path, 'read.py').stdout.splitlines()[-1].rsplit(' ', 1)
    assert Path(file).is_relative_to(site) and int(count) > 0


@pytest.mark.parametrize(
    'argument, expected',
    [
        ('trian', 'trian is not an argument; did you mean train?'),
        ('train', 'train is not an argument; run python -m lkdn_basicsr.train'),
        ('--verbose', '--verbose is not an argument; known here: '),
    ],
)
def test_unknown_argument_is_reported_in_one_line(monkeypatch, argument, expected):
    monkeypatch.setattr(sys, 'argv', ['lkdn_basicsr', argument])
    with pytest.raises(SystemExit, match='^python -m lkdn_basicsr: error: ') as exit:
        main()
    assert expected in str(exit.value) and '\n' not in str(exit.value)

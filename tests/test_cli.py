"""How commands end after an error: one line, and no traceback, whatever the output is."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from lkdn_basicsr import cli
from lkdn_basicsr.errors import InputError

LONG = 'x' * 100_000
CLOSED_PIPE = 'standard output: closed before everything was written; read all of it'


def end(function, *arguments):
    """Return the message with which a command ends that calls a function."""
    with pytest.raises(SystemExit) as caught, cli.report_errors('prog'):
        function(*arguments)
    return caught.value.code


def raising(error):
    raise error


def test_errors_are_one_line():
    assert end(raising, InputError('a\nb\udcff is wrong')) == r'prog: error: a\nb\xff is wrong'
    message = 'prog: error: missing: no such file or folder; correct the path, or create it'
    assert end(open, 'missing') == message
    assert end(raising, KeyboardInterrupt()) == 130
    with pytest.raises(KeyError), cli.report_errors('prog'):  # a bug
        raise KeyError


@pytest.fixture
def stream(monkeypatch):
    """Return a function that redirects standard output to a file descriptor."""
    streams = []

    def redirect(descriptor, **options):
        streams.append(open(descriptor, 'w', **options))
        monkeypatch.setattr(sys, 'stdout', streams[-1])
        return streams[-1]

    yield redirect
    for one in streams:
        one.close()  # raises if something is left to write


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize('text', ['short', LONG])
@pytest.mark.parametrize('ends', [False, True])
def test_closed_pipe(stream, text, ends):
    def work():
        print(text)
        if ends:
            sys.exit(0)  # as --help does

    stream(closed_pipe())
    assert end(work) == f'prog: error: {CLOSED_PIPE}'


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_full_disk_behind_the_output(stream):
    stream(os.open('/dev/full', os.O_WRONLY))
    assert end(print, 'short') == 'prog: error: standard output: the disk is full; free some space'


def test_output_in_any_encoding(stream):
    reader, writer = os.pipe()
    output = stream(writer, encoding='ascii')
    with cli.report_errors('prog'):
        print('×4 \udcff 画')
    output.close()
    with open(reader, 'rb') as file:
        assert file.read() == rb'\xd74 \udcff \u753b' + b'\n'


def test_streams_that_are_closed_before_the_start(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', None)
    monkeypatch.setattr(sys, 'stderr', None)
    with cli.report_errors('prog'):
        print('×4')
        assert not sys.stderr.isatty()
    for one in (sys.stdout, sys.stderr):
        assert one.name == os.devnull
        one.close()


def test_errors_of_threads_are_left_to_the_main_thread(capsys):
    def fail(error):
        thread = threading.Thread(target=raising, args=(error,))
        thread.start()
        thread.join()

    with cli.report_errors('prog'):
        fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        assert capsys.readouterr().err == ''
        fail(KeyError('a bug'))
        assert 'a bug' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    'redirection, status, message',
    [('| true', 1, CLOSED_PIPE), ('> /dev/full', 1, 'the disk is full'), ('>&-', 0, ''), ('2>&- | true', 1, '')],
)
def test_real_command(redirection, status, message):
    """Python flushes the output again when it exits."""
    command = f'{sys.executable} -m lkdn_basicsr.options.docs {redirection}; exit ${{PIPESTATUS[0]}}'
    environment = {key: value for key, value in os.environ.items() if key != 'PYTHONUNBUFFERED'}
    done = subprocess.run(['bash', '-c', command], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == status and message in done.stderr and done.stderr.count('\n') == bool(message)

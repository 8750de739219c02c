"""Conditions of the system under which commands fail: another user, small and read-only disks."""

import contextlib
import os
import subprocess

import pytest


def as_nobody():
    """Return a context in which this process is another user, for its rights to files; skip the test if not root."""
    if not hasattr(os, 'geteuid') or os.geteuid() != 0:
        pytest.skip('needs root')
    return _as_nobody()


@contextlib.contextmanager
def _as_nobody():
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextlib.contextmanager
def disk(folder, options):
    """Mount a disk in memory on a folder, with options such as ``size=8k``; skip the test if that is not permitted."""
    folder.mkdir(exist_ok=True)
    command = ['mount', '-t', 'tmpfs', '-o', options, 'none', str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('needs the permission to mount')
    try:
        yield
    finally:
        subprocess.run(['umount', str(folder)], check=True)

"""Fixtures for all tests: the reference data, and a folder to train and test in."""

from pathlib import Path

import pytest
import torch

import lkdn_basicsr  # noqa: F401  before any module of BasicSR, which do not import without it
from tests.support import runs

torch.set_num_threads(1)  # the tensors are tiny; and the tests must not depend on the number of cores

SHARED = Path(__file__).resolve().parents[2] / 'shared'


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker('gpu'):
                item.add_marker(pytest.mark.skip(reason='needs a GPU'))


@pytest.fixture
def shared():
    """The folder with the official code's numbers, weights and images, which a checkout may lack."""
    if not SHARED.is_dir():
        pytest.skip('the reference data (../shared) is missing')
    return SHARED


@pytest.fixture
def tf32():
    """Allow TF32 in products of matrices, which is not the default."""
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The current folder, with images and option files to train and to test on."""
    monkeypatch.chdir(tmp_path)
    runs.write_run(tmp_path)
    runs.reset_log()
    yield tmp_path
    runs.reset_log()

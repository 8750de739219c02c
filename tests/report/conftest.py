import pytest

from tests.support.results import make_benchmark


@pytest.fixture
def benchmarks(tmp_path):
    """Urban100 with p0 (120×160) and p1 (96×128), and Set5 with p0 (64×64)."""
    sizes = {'Urban100': [(120, 160), (96, 128)], 'Set5': [(64, 64)]}
    return [make_benchmark(tmp_path / name, size) for name, size in sizes.items()]

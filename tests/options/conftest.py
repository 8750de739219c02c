import pytest
import torch

from lkdn_basicsr.errors import InputError
from tests.support.option_files import parse_run, small_network, test_options, train_options, write_options, write_pairs


@pytest.fixture
def opt(tmp_path):
    """The options of the small training file; its images exist."""
    write_pairs(tmp_path)
    return train_options(tmp_path)


@pytest.fixture
def test_opt(tmp_path):
    """The options of the small test file; its images and its checkpoint, ``net.pth``, exist."""
    write_pairs(tmp_path)
    torch.save({'params': small_network().state_dict()}, tmp_path / 'net.pth')
    return test_options(tmp_path, tmp_path / 'net.pth')


@pytest.fixture
def parse(tmp_path):
    """Write options to x.yml and parse them, with other arguments, as ``train`` and ``test`` do."""

    def parse(opt, *arguments, is_train=True):
        return parse_run(tmp_path, is_train, write_options(tmp_path / 'x.yml', opt), *arguments)

    return parse


@pytest.fixture
def refused(tmp_path, parse):
    """Return the message, of one line, with which options are refused; no file may be written."""

    def files():
        return sorted((path, path.stat().st_size) for path in tmp_path.rglob('*') if path.is_file())

    def refused(opt, *arguments, is_train=True):
        write_options(tmp_path / 'x.yml', opt)
        before = files()
        with pytest.raises(InputError) as caught:
            parse(opt, *arguments, is_train=is_train)
        assert files() == before and '\n' not in str(caught.value)
        return str(caught.value)

    return refused

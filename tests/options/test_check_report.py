"""``--check`` reports what would be trained or tested, and writes nothing."""

import pytest
import torch

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError
from tests.support.option_files import parse_run, small_network, test_options, train_options, write_options, write_pairs


@pytest.fixture
def check(tmp_path, capsys):
    """Write options to x.yml, check them, and return the printed lines; no file may change."""
    write_pairs(tmp_path)
    torch.save({'params': small_network().state_dict()}, tmp_path / 'net.pth')

    def check(opt, is_train, *arguments):
        path = write_options(tmp_path / 'x.yml', opt)
        before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob('*'))
        try:
            with pytest.raises(SystemExit) as caught:
                parse_run(str(tmp_path), is_train, ['-opt', path, '--check', *arguments])
            assert caught.value.code == 0
        finally:
            assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob('*')) == before
        return capsys.readouterr().out.splitlines()

    return check


def test_training(check, tmp_path):
    opt = train_options(tmp_path)
    opt['path']['pretrain_network_g'] = str(tmp_path / 'net.pth')
    parameters = sum(parameter.numel() for parameter in small_network().parameters())
    assert check(opt, True) == [
        f'option file: {tmp_path}/x.yml',
        'datasets:train: Images, 4 images; a sample is lq 3x8x8, gt 3x16x16',
        'datasets:val: Validation, 4 images; a sample is lq 3x12x13, gt 3x24x26',
        f'network_g: MSRResNet, {parameters:,d} parameters',
        f'path:pretrain_network_g: {tmp_path}/net.pth',
        'nothing is wrong',
    ]


def test_benchmarks(check, tmp_path):
    lines = check(test_options(tmp_path, tmp_path / 'net.pth'), False)
    assert 'datasets:test_2: Other, 4 images; a sample is lq 3x12x13, gt 3x24x26' in lines
    assert lines[-1] == 'nothing is wrong'


def test_an_error_is_raised_instead(check, tmp_path, capsys):
    with pytest.raises(InputError, match='gt_size'):
        check(train_options(tmp_path), True, '--force_yml', 'datasets:train:gt_size=64')
    assert 'nothing is wrong' not in capsys.readouterr().out


def test_nothing_is_downloaded(check, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, 'ensure', lambda path: pytest.fail('this would download'))
    lines = check(test_options(tmp_path, 'LKDN_x2.pth'), False)
    assert "LKDN_x2.pth does not exist and will be downloaded from the authors' repository." in lines

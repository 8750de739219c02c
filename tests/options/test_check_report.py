import pytest

from lkdn_basicsr import checkpoints
from tests.support.option_files import small_network, test_options


@pytest.fixture
def check(tmp_path, parse, capsys):
    """Check options in x.yml, and return the printed lines; no file may change."""

    def files():
        return sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob('*') if path.name != 'x.yml')

    def check(opt, is_train):
        before = files()
        with pytest.raises(SystemExit) as caught:
            parse(opt, '--check', is_train=is_train)
        assert caught.value.code == 0 and files() == before
        printed = capsys.readouterr()
        assert not printed.err  # progress bars are drawn on terminals only
        return printed.out.splitlines()

    return check


def test_training(check, tmp_path, test_opt, opt):
    opt['path']['pretrain_network_g'] = str(tmp_path / 'net.pth')
    parameters = sum(parameter.numel() for parameter in small_network().parameters())
    assert check(opt, True) == [
        f'option file: {tmp_path}/x.yml',
        'datasets:train: Images, 4 images; a sample is lq 3x8x8, gt 3x16x16',
        'datasets:val: Validation, 4 images; a sample is lq 3x12x13, gt 3x24x26',
        f'network_g: MSRResNet, {parameters:,d} parameters',
        f'path:pretrain_network_g: {tmp_path}/net.pth',
        'images verified: train, val',
        'No problems found.',
    ]


def test_benchmarks(check, test_opt):
    lines = check(test_opt, False)
    assert 'datasets:test_2: Other, 4 images; a sample is lq 3x12x13, gt 3x24x26' in lines
    assert lines[-1] == 'No problems found.'


def test_an_error_is_raised_instead(opt, refused, capsys):
    assert 'gt_size' in refused(opt, '--check', '--force_yml', 'datasets:train:gt_size=64')
    assert 'No problems found.' not in capsys.readouterr().out


def test_nothing_is_downloaded(check, tmp_path, test_opt, monkeypatch):
    monkeypatch.setattr(checkpoints, 'ensure', lambda path: pytest.fail('this would download'))
    lines = check(test_options(tmp_path, 'LKDN_x2.pth'), False)
    assert "LKDN_x2.pth does not exist and will be downloaded from the authors' repository." in lines

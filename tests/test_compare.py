"""The command compare, from files to tables and a page, and how it refuses what cannot be compared."""

import csv
import json
import os
import subprocess
import sys

import pytest
from basicsr.archs.srresnet_arch import MSRResNet
from spandrel.architectures.SPAN import SPAN

from lkdn_basicsr import compare
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate import complexity, measure
from tests.support.networks import save, shaken, small_lkdn, write_set


@pytest.fixture(autouse=True)
def a_small_output(monkeypatch):
    """Timed and counted for an output of 96×64: that of 1280×720 takes a second on a CPU."""
    monkeypatch.setattr(complexity, 'OUTPUT', (64, 96))


@pytest.fixture
def sets(tmp_path):
    return [str(write_set(tmp_path, name)) for name in ('Set5', 'Waves')]


@pytest.fixture
def ours(tmp_path):
    return save(small_lkdn(), tmp_path / 'LKDN_small.pth')


def run(*arguments):
    """The command in this process; what it exits with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['compare', *map(str, arguments)])
        try:
            compare.main()
        except SystemExit as end:
            return end.code
    return 0


def rows_of(out):
    with open(out / 'table.csv', newline='') as file:
        return list(csv.DictReader(file))


def test_networks_of_all_kinds_on_two_sets(tmp_path, sets, ours, capsys):
    theirs = save(shaken(MSRResNet(3, 3, 8, 1, 4)), tmp_path / 'MSRResNet.pth')
    span = save(shaken(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4)), tmp_path / 'net.pth')
    out = tmp_path / 'out'
    assert run('--models', ours, theirs, f'SPAN tiny={span}', '--sets', *sets, '--out', out) == 0
    rows = rows_of(out)
    assert list(rows[0]) == [
        'method',
        'scale',
        'params',
        'multi_adds',
        'Set5_psnr',
        'Set5_ssim',
        'Waves_psnr',
        'Waves_ssim',
        'latency',
    ]
    assert [row['method'] for row in rows] == ['Bicubic', 'LKDN_small', 'MSRResNet', 'SPAN tiny']
    assert all(row['scale'] == '4' for row in rows)
    assert rows[0]['params'] == rows[0]['multi_adds'] == rows[0]['latency'] == ''
    assert rows[1]['params'] == str(sum(parameter.numel() for parameter in small_lkdn().parameters()))
    table = (out / 'table.md').read_text()
    assert '| Bicubic |' in table.splitlines()[2]
    assert 'As published' in table and 'BSRN' in table  # of the set called Set5
    assert (out / 'index.html').stat().st_size > 10_000
    said = capsys.readouterr().out
    assert table.startswith(said.split('\n\n')[0])
    assert said.endswith(f'The page: {out / "index.html"}\n')


def test_a_method_more_costs_that_method_alone(tmp_path, sets, ours):
    out = tmp_path / 'out'
    assert run('--models', ours, '--sets', sets[0], '--out', out) == 0
    (record,) = (out / 'methods').glob('LKDN_small-*/Set5.json')
    scores = json.loads(record.read_text())
    scores['psnr'] = dict.fromkeys(scores['psnr'], 99.0)
    record.write_text(json.dumps(scores))
    theirs = save(shaken(MSRResNet(3, 3, 8, 1, 4)), tmp_path / 'MSRResNet.pth')
    assert run('--models', ours, theirs, '--sets', *sets, '--out', out) == 0
    rows = rows_of(out)
    assert float(rows[1]['Set5_psnr']) == 99
    assert all(5 < float(rows[index][column]) < 50 for index, column in ((1, 'Waves_psnr'), (2, 'Set5_psnr')))


def test_the_region_that_is_asked_for(tmp_path, sets, ours):
    out = tmp_path / 'out'
    assert run('--models', ours, '--sets', *sets, '--out', out, '--region', 'Waves/b:3,4,20,16') == 0
    assert [path.name for path in out.glob('comparison-*.png')] == ['comparison-Waves-b.png']


def test_everything_is_checked_before_anything_is_measured(tmp_path, sets, ours, capsys):
    two = save(small_lkdn(upscale=2), tmp_path / 'two.pth')
    empty = tmp_path / 'empty'
    empty.mkdir()
    (tmp_path / 'file').write_text('')
    wrong = [
        ((ours, two), sets, (), f'{two} is a ×2 network; --scale is 4'),
        ((ours, tmp_path / 'none.pth'), sets, (), 'none.pth is not there'),
        ((ours, ours), sets, (), 'are both called LKDN_small; call one of them otherwise, as in NAME=FILE'),
        ((ours,), [*sets, empty], (), 'empty has no folder GTmod4'),
        ((ours,), [sets[0], sets[0]], (), 'are both called Set5; rename one of the folders'),
        ((ours,), sets, ('--region', 'Wave/b'), 'Wave'),
        ((ours,), sets, ('--region', 'Waves/b:0,0,900,9'), 'Waves/b:0,0,900,9'),
        ((ours,), sets, ('--scale', '1'), '--scale is 1'),
    ]
    for models, folders, more, message in wrong:
        out = tmp_path / 'out'
        said = run('--models', *models, '--sets', *folders, '--out', out, *more)
        assert said.startswith('python -m lkdn_basicsr.compare: error: ') and message in said and '\n' not in said
        assert not out.exists()
    said = run('--models', ours, '--sets', *sets, '--out', tmp_path / 'file' / 'out')
    assert '--out' in said and 'cannot be written' in said
    assert capsys.readouterr().out == ''


def test_an_interrupted_command(tmp_path, sets, ours, monkeypatch):

    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, 'calculate_psnr', interrupt)
    assert run('--models', ours, '--sets', *sets, '--out', tmp_path / 'out') == 130


def test_what_methods_are_called(tmp_path):
    run_a, run_b = (tmp_path / 'experiments' / name / 'models' for name in ('wide', 'deep'))
    paths = [str(run_a / 'net_g_5000.pth'), str(run_a / 'net_g_latest_fused.pth'), str(run_b / 'net_g_latest.pth')]
    given = [(None, path) for path in paths] + [(None, 'LKDN_x4.pth'), ('mine', 'LKDN_x4.pth')]
    assert compare.method_names(given) == ['wide 5000', 'wide latest_fused', 'deep', 'LKDN_x4', 'mine']
    with pytest.raises(InputError, match='a/x.pth and b/x.pth are both called x'):
        compare.method_names([(None, 'a/x.pth'), (None, 'b/x.pth')])


def test_names_before_files(tmp_path):
    odd = tmp_path / 'a=b.pth'
    odd.write_text('')
    assert compare.split_name('mine=a.pth') == ('mine', 'a.pth')
    assert compare.split_name('a.pth') == (None, 'a.pth')
    assert compare.split_name(str(odd)) == (None, str(odd))
    assert compare.split_name(f'mine={odd}') == ('mine', str(odd))


def command(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=os.path.dirname(os.path.dirname(__file__))
    )


def test_help_does_not_wait_for_torch():
    done = command('-X', 'importtime', '-m', 'lkdn_basicsr.compare', '--help')
    assert done.returncode == 0 and '--models' in done.stdout
    assert 'lkdn_basicsr.cli' in done.stderr and 'torch' not in done.stderr


def test_a_mistake_ends_the_command_with_one_line(tmp_path, sets):
    out = str(tmp_path / 'out')
    done = command('-m', 'lkdn_basicsr.compare', '--models', 'none.pth', '--sets', *sets, '--out', out)
    assert done.returncode == 1
    assert done.stderr.startswith('python -m lkdn_basicsr.compare: error: checkpoint none.pth does not exist: ')
    assert done.stderr.count('\n') == 1


def test_the_papers_table(tmp_path, shared):
    """The authors' checkpoints on Set5: the paper's 32.39 dB, and what the authors' code gives."""
    official = [shared / 'official' / f'{name}.pth' for name in ('LKDN_x4', 'LKDN-S_x4')]
    out = tmp_path / 'out'
    assert run('--models', *official, '--sets', shared / 'data' / 'Set5', '--out', out) == 0
    rows = {row['method']: row for row in rows_of(out)}
    printed = {name: f'{float(row["Set5_psnr"]):.2f}/{float(row["Set5_ssim"]):.4f}' for name, row in rows.items()}
    assert printed['LKDN_x4'] == '32.39/0.8980'
    assert printed['LKDN-S_x4'] == '32.11/0.8938'
    assert rows['LKDN-S_x4']['params'] == '129177'

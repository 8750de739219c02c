import csv
import itertools
import json
import os
import re
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from basicsr.archs.srresnet_arch import MSRResNet
from spandrel.architectures.SPAN import SPAN

from lkdn_basicsr import compare, locks
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate import complexity, measure
from lkdn_basicsr.locks import FolderLock
from tests.support.images import NAMES
from tests.support.networks import randomize, save_checkpoint, small_lkdn
from tests.support.results import make_benchmark
from tests.support.runs import snapshot


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with two models, the benchmarks Set5 and Waves, and costs for an output of 96×64."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(complexity, 'OUTPUT', (64, 96))  # 1280×720 takes a second on a CPU
    save_checkpoint(small_lkdn(), 'LKDN.pth')
    save_checkpoint(randomize(MSRResNet(3, 3, 8, 1, 4)), 'MSRResNet.pth')
    for name in ('Set5', 'Waves'):
        make_benchmark(Path(name))
    return tmp_path


def run(arguments):
    """Run the command in this process and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['compare', *arguments.split()])
        try:
            compare.main()
        except SystemExit as end:
            return end.code
    return 0


def read_table(out):
    with open(out / 'table.csv', newline='') as file:
        return list(csv.DictReader(file))


def test_networks_of_all_kinds_on_two_benchmarks(folder, capsys):
    save_checkpoint(randomize(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4)), 'net.pth')
    assert run('--models LKDN.pth MSRResNet.pth SPAN=net.pth --sets Set5 Waves --out out') == 0
    rows = read_table(folder / 'out')
    scores = ['Set5_psnr', 'Set5_ssim', 'Waves_psnr', 'Waves_ssim']
    assert list(rows[0]) == ['method', 'scale', 'params', 'multi_adds', *scores, 'latency']
    assert [row['method'] for row in rows] == ['Bicubic', 'LKDN', 'MSRResNet', 'SPAN']
    assert all(row['scale'] == '4' for row in rows)
    assert rows[0]['params'] == rows[0]['multi_adds'] == rows[0]['latency'] == ''
    assert rows[1]['params'] == str(sum(parameter.numel() for parameter in small_lkdn().parameters()))
    table = (folder / 'out' / 'table.md').read_text()
    assert '| Bicubic |' in table.splitlines()[2]
    assert 'BSRN' in table  # published results on the benchmark called Set5
    assert (folder / 'out' / 'index.html').stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert table.startswith(printed.split('\n\n')[0]) and printed.endswith('The page: out/index.html\n')


def test_an_additional_method_costs_only_itself(folder):
    assert run('--models LKDN.pth --sets Set5 --out out') == 0
    (record,) = folder.glob('out/methods/LKDN-*/Set5.json')
    scores = json.loads(record.read_text())
    record.write_text(json.dumps(scores | {'psnr': dict.fromkeys(scores['psnr'], 99.0)}))
    assert run('--models LKDN.pth MSRResNet.pth --sets Set5 Waves --out out') == 0
    rows = read_table(folder / 'out')
    assert float(rows[1]['Set5_psnr']) == 99
    assert all(5 < float(rows[index][column]) < 50 for index, column in ((1, 'Waves_psnr'), (2, 'Set5_psnr')))


def test_the_given_region_is_shown(folder):
    assert run('--models LKDN.pth --sets Set5 Waves --out out --region Waves/p1:3,4,20,16') == 0
    assert [path.name for path in folder.glob('out/comparison-*.png')] == ['comparison-Waves-p1.png']


def test_everything_is_checked_before_anything_is_measured(folder, capsys):
    save_checkpoint(small_lkdn(upscale=2), 'x2.pth')
    (folder / 'empty').mkdir()
    (folder / 'file').write_text('')
    for arguments, message in [
        ('--models LKDN.pth x2.pth', 'x2.pth is a ×2 network, but --scale is 4'),
        ('--models LKDN.pth none.pth', 'none.pth'),
        ('--models LKDN.pth LKDN.pth', 'are both called LKDN; give one of them another name, as in NAME=FILE'),
        ('--sets Set5 empty', 'empty has no folder GTmod4'),
        ('--sets Set5 Set5', 'are both called Set5; rename one of the folders'),
        ('--region Wave/p1', 'Wave'),
        ('--region Waves/p1:0,0,900,9', 'Waves/p1:0,0,900,9'),
        ('--scale 1', '--scale is 1'),
        ('--out file/out', 'a part of this path is a file'),
    ]:
        error = run(f'--models LKDN.pth --sets Set5 Waves --out out {arguments}')
        assert error.startswith('python -m lkdn_basicsr.compare: error: ') and message in error and '\n' not in error
        assert not (folder / 'out').exists()
    assert capsys.readouterr().out == ''


def test_a_second_command_is_refused_and_changes_nothing(folder, monkeypatch):
    monkeypatch.setattr(locks, 'PATIENCE', 0)
    with FolderLock('out'):
        before = snapshot(folder)
        assert f'out is in use by process {os.getpid()} on ' in run('--models LKDN.pth --sets Set5 --out out')
        assert snapshot(folder) == before


def test_images_benchmarks_and_methods_of_any_name(folder, capsys):
    raw, lines, marks, long = NAMES
    for kind in ('GTmod4', 'LRbicx4'):
        for old, new in (('p0', raw), ('p1', long)):
            os.rename(f'Set5/{kind}/{old}.png', f'Set5/{kind}/{new}.png')
    os.rename('Set5', marks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['compare', '--models', f'{lines}{raw}=LKDN.pth', '--sets', marks, '--out', 'out'])
        compare.main()
    saved = [path for path in (folder / 'out/methods').glob('*/*/*.png') if path.stem in (raw, long)]
    assert [path.parent.name for path in saved] == [marks] * 4
    drawn = [path.name for path in (folder / 'out').glob('comparison-*.png')]
    assert len(drawn) == 2 and all(name.isprintable() for name in drawn)
    for file in ('table.csv', 'index.html'):
        (folder / 'out' / file).read_text(encoding='utf-8')
    heading, _, *rows = (folder / 'out/table.md').read_text().split('\n\n')[0].splitlines()
    assert len(rows) == 2 and len({len(re.findall(r'(?<!\\)\|', row)) for row in (heading, *rows)}) == 1
    assert capsys.readouterr().out.startswith(heading)


def test_an_interrupted_command(folder, monkeypatch):
    monkeypatch.setattr(measure, 'calculate_psnr', Mock(side_effect=KeyboardInterrupt))
    assert run('--models LKDN.pth --sets Set5 --out out') == 130


def test_method_names(tmp_path):
    wide, deep = (tmp_path / 'experiments' / name / 'models' for name in ('wide', 'deep'))
    paths = [str(wide / 'net_g_5000.pth'), str(wide / 'net_g_latest_fused.pth'), str(deep / 'net_g_latest.pth')]
    named_files = [(None, path) for path in paths] + [(None, 'LKDN_x4.pth'), ('mine', 'LKDN_x4.pth')]
    assert compare.method_names(named_files) == ['wide 5000', 'wide latest_fused', 'deep', 'LKDN_x4', 'mine']
    with pytest.raises(InputError, match='a/x.pth and b/x.pth are both called x'):
        compare.method_names([(None, 'a/x.pth'), (None, 'b/x.pth')])


def test_split_name(tmp_path):
    (tmp_path / 'a=b.pth').write_text('')
    for name, file in itertools.product(('mine', None), ('a.pth', f'{tmp_path}/a=b.pth')):
        assert compare.split_name(f'{name}={file}' if name else file) == (name, file)


@pytest.mark.slow
def test_official_checkpoints_on_set5(tmp_path, shared):
    """The figures of the authors' code. Bicubic is of RGB; the usual 28.42 and 0.8104 are of Y only."""
    models = ' '.join(f'{shared}/official/{name}.pth' for name in ('LKDN_x4', 'LKDN-S_x4', 'LKDN-S_del_rep_x4'))
    assert run(f'--models {models} --sets {shared}/data/Set5 --out {tmp_path}') == 0
    rows = read_table(tmp_path)
    assert [row['params'] for row in rows] == ['', '321992', '129177', '129177']
    psnr, ssim = ([float(row[f'Set5_{metric}']) for row in rows] for metric in ('psnr', 'ssim'))
    # 0.001 dB: on other machines and torch versions, some pixels are rounded differently to 8 bits.
    assert psnr == pytest.approx([28.4302, 32.3948, 32.1058, 32.1058], abs=1e-3)
    assert ssim == pytest.approx([0.8111, 0.8980, 0.8938, 0.8938], abs=1e-4)
    assert psnr[3] == pytest.approx(psnr[2], abs=5e-4)

"""Studies: the rows of a table trained and measured, killed and gone on with, dealt out to ranks."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from lkdn_basicsr.checkpoints import list_training_states
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_networks import check_networks
from lkdn_basicsr.options.check_relations import check_relations
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.option_file import read_option_file
from lkdn_basicsr.study import __main__ as study
from lkdn_basicsr.study.runs import option_files, read_rows
from tests.support import processes as children
from tests.training.test_resume import same
from tests.training.test_run import furnish, snapshot

ITERATIONS = 16
ABLATION = Path(__file__).resolve().parents[2] / 'options/ablation'


def make_home(folder):
    """Pictures, a base, and two rows on it: ``table/1_a.yml`` as the base, ``table/2_b.yml`` by SGD."""
    furnish(folder)
    (folder / 'sets/held').mkdir(parents=True)
    for name, target in (('gt', 'GTmod2'), ('lq', 'LRbicx2')):
        (folder / 'val' / name).rename(folder / 'sets/held' / target)
    options = yaml.safe_load((folder / 'train.yml').read_text())
    options['datasets']['val'].update(dataroot_gt='sets/held/GTmod2', dataroot_lq='sets/held/LRbicx2', name='held')
    options['network_g'].update(conv='BSConvU')
    options['val']['val_freq'] = 2
    write(folder / 'train.yml', options)
    (folder / 'table').mkdir()
    write(folder / 'table/1_a.yml', dict(base='../train.yml', name='a'))
    write(
        folder / 'table/2_b.yml',
        dict(
            base='../train.yml',
            name='b',
            network_g=dict(conv='BSConvU_rep'),
            train=dict(optim_g=dict(type='SGD', lr=0.1, momentum=0.9)),
        ),
    )
    return folder


def write(path, options):
    Path(path).write_text(yaml.safe_dump(options, sort_keys=False))


def run(*arguments):
    """``python -m lkdn_basicsr.study`` in this process, which the trainings are not in: how it ends."""
    before = sys.argv, sys.excepthook
    sys.argv = ['study', *map(str, arguments)]
    try:
        study.main()
    except SystemExit as end:
        return end.code
    finally:
        sys.argv, sys.excepthook = before
    return None


def in_child(folder, arguments):
    """The same in a process that can be killed."""
    children.work_in(folder)
    sys.argv = ['study', *arguments]
    study.main()


def start(folder, *arguments, ranks=1):
    return children.start_ranks(ranks, lambda rank: (in_child, str(folder), list(arguments)))


def outcome(out):
    """What must not depend on interruptions, and on how many processes share the work: networks, curves and table."""
    rows = list(csv.DictReader((out / 'table.csv').open()))
    table = [{key: value for key, value in row.items() if key not in ('latency', 'seconds')} for row in rows]
    nets = {name: torch.load(out / f'experiments/{name}/models/net_g_latest.pth', weights_only=True) for name in 'ab'}
    curves = {name: yaml.safe_load((out / f'experiments/{name}/study.json').read_text())['curves'] for name in 'ab'}
    return {'table': table, 'nets': nets, 'curves': curves}


@pytest.fixture(scope='module')
def studied(tmp_path_factory):
    """A folder with pictures and option files, and what an undisturbed study of them left in ``out``."""
    home = make_home(tmp_path_factory.mktemp('study'))
    before = os.getcwd()
    os.chdir(home)
    try:
        assert run('table', '--iters', ITERATIONS, '--out', 'out') is None
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def home(studied, monkeypatch):
    monkeypatch.chdir(studied)
    return studied


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A folder with pictures and option files, and a study in ``out`` that has not come far."""
    monkeypatch.chdir(make_home(tmp_path))
    for row in read_rows(['table'], 'out', ITERATIONS):
        row.begin()
    return tmp_path


def test_study_writes_table_curves_and_page(home):
    rows = list(csv.DictReader((home / 'out/table.csv').open()))
    assert [row['method'] for row in rows] == ['Bicubic', 'a', 'b']
    assert rows[1]['params'] == rows[2]['params'] != ''  # b has branches, and is measured fused
    assert 10 < float(rows[1]['held_psnr']) < 50 and rows[1]['held_psnr'] != rows[2]['held_psnr']
    assert '| a ' in (home / 'out/table.md').read_text() and '<html' in (home / 'out/index.html').read_text().lower()
    assert cv2.imread(str(home / 'out/curves.png')) is not None
    record = yaml.safe_load((home / 'out/experiments/a/study.json').read_text())
    assert [step for step, _ in record['curves']['held']] == list(range(1, ITERATIONS + 1))
    # The last point is that of the network which the table measures; its PSNR was logged in single precision.
    assert record['curves']['held'][-1][1] == pytest.approx(float(rows[1]['held_psnr']), abs=6e-3)
    assert 0 < record['seconds'] < 60
    assert not (home / 'experiments').exists() and not (home / 'tb_logger').exists()


def test_ranks_stopped_and_killed_go_on_and_end_as_one_process_that_was_not_disturbed(home):
    expected, out, arguments = (
        outcome(home / 'out'),
        home / 'killed',
        ('table', '--iters', str(ITERATIONS), '--out', 'killed'),
    )
    ranks = start(home, *arguments, ranks=2)
    limit, left = time.monotonic() + 120, {'a': signal.SIGKILL, 'b': signal.SIGTERM}
    while left:
        assert time.monotonic() < limit, children.output(home)
        time.sleep(0.01)
        for name in list(left):
            if any(
                iteration >= 3 for iteration, _ in list_training_states(out / f'experiments/{name}/training_states')
            ):
                rank = int(re.search(rf'{name} begins on rank (\d)', children.output(home))[1])
                os.kill(ranks[rank].pid, left.pop(name))
    for process in ranks:
        process.join()
    assert {process.exitcode for process in ranks} == {-signal.SIGKILL, 143}
    assert 'stopped by SIGTERM; the same command goes on from here' in children.output(home)
    assert not (out / 'table.md').exists()

    ranks = start(home, *arguments, ranks=2)  # at once: a trainer may still be writing
    assert children.finish(ranks) == [0, 0], children.output(home)[-3000:]
    assert same(outcome(out), expected)
    for name in 'ab':
        log = ''.join(path.read_text() for path in (out / f'experiments/{name}').glob('train_*.log'))
        assert log.count('Resuming training') == 1
    assert sorted(os.listdir(out / 'experiments')) == ['a', 'b']  # none was moved away


def test_done_rows_are_skipped(home, capfd):
    shutil.copytree('out', 'again')
    before = snapshot(home / 'again/experiments')
    assert run('table', '--iters', ITERATIONS, '--out', 'again') is None
    after = snapshot(home / 'again/experiments')
    assert before == after and same(outcome(home / 'again'), outcome(home / 'out'))
    assert 'INFO' not in capfd.readouterr().out  # of a trainer


def test_networks_are_timed_when_no_row_is_trained_any_more(home, monkeypatch):
    shutil.copytree('out', 'untimed')
    for path in Path('untimed/methods').glob('*/cost.json'):
        path.unlink()

    def costs():
        return [yaml.safe_load(path.read_text()) for path in Path('untimed/methods').glob('*/cost.json')]

    with monkeypatch.context() as patch:
        patch.setattr(study.Study, 'conclude', lambda *_: None)  # killed before the end
        assert run('table', '--iters', ITERATIONS, '--out', 'untimed') is None
    assert len(costs()) == 2 and all(cost['params'] and not cost['latency'] for cost in costs())
    assert run('table', '--iters', ITERATIONS, '--out', 'untimed') is None
    assert all(cost['latency'] for cost in costs())


def test_more_iterations_go_on_and_a_row_that_fails_does_not_stop_the_others(home, capfd):
    shutil.copytree('out', 'more')
    write('wrong.yml', dict(base='train.yml', name='wrong', train=dict(optim_g=dict(type='SGD', lr=1e25))))
    status = run('wrong.yml', 'table/1_a.yml', '--iters', ITERATIONS + 2, '--out', 'more')
    assert re.search(r'1 of 2 rows failed: wrong \(.*(nan|NaN|inf).*train:optim_g:lr', status)
    assert 'wrong: error: ' in capfd.readouterr().err
    assert [row['method'] for row in csv.DictReader(open('more/table.csv'))] == ['Bicubic', 'a']
    states = {path.name for path in Path('more/experiments/a/training_states').iterdir()}
    assert states == {f'{ITERATIONS + 1}.state', f'{ITERATIONS + 2}.state'}
    assert 'Resuming training' in max(Path('more/experiments/a').glob('train_*.log')).read_text()


BAD = [
    (['nowhere.yml'], 'The option file nowhere.yml does not exist'),
    (['sets'], 'sets holds no option file .*: give a folder that does, as sets/held'),
    (['table', 'table/1_a.yml'], r'table/1_a\.yml, line 2: name is a, as is that of table/1_a\.yml'),
    (['table', 'scale.yml'], r'scale\.yml, line 3: scale is 3, and that of table/1_a\.yml is 2'),
    (['table', 'typo.yml'], r'typo\.yml, line 4: network_g:num_fat is not an argument of LKDN'),
    (['table', 'lost.yml'], r'lost\.yml, line 5: datasets:train:dataroot_gt is lost, which does not exist'),
    (['table', '--sets', 'train'], 'the test set train has no folder GTmod2'),
    (['table', '--sets', 'sets/held', 'sets/held'], 'are both called held'),
    (['table', 'other.yml'], r'other\.yml, line 4: datasets:val is no folder with GTmodX and LRbicxX.* --sets'),
    (['table', '--force_yml', 'train:lr=1'], r'--force_yml train:lr=1: train:lr is not in table/1_a\.yml or its base'),
    (
        ['table', '--force_yml', 'train:optim_g:lr=1e-4', '--out', 'out'],
        'a was begun with train:optim_g:lr: 0.005, '
        r'and is to go on with 0.0001: give the study another --out, or remove out/experiments/a',
    ),
    (['table', '--iters', '5', '--out', 'out'], 'a was begun with 16 iterations, more than 5'),
    (['table', '--out', 'train.yml/x'], '--out: train.yml/x cannot be written to'),
    (['debug.yml'], 'name is debug_me'),
]


@pytest.mark.parametrize('arguments, said', BAD)
def test_mistake_in_any_row_is_one_sentence_and_nothing_is_begun(begun, arguments, said):
    val = dict(dataroot_gt='train/gt', dataroot_lq='train/lq')
    more = dict(
        scale=dict(scale=3, network_g=dict(upscale=3), datasets=dict(train=dict(gt_size=18))),
        typo=dict(network_g=dict(num_fat=3)),
        lost=dict(datasets=dict(train=dict(dataroot_gt='lost'))),
        other=dict(datasets=dict(val=val)),
        debug={},
    )
    for name, changes in more.items():
        write(f'{name}.yml', dict(base='train.yml', name='debug_me' if name == 'debug' else name, **changes))
    before = snapshot(begun)
    rest = [] if '--out' in arguments else ['--out', 'never']
    rest += [] if '--iters' in arguments else ['--iters', ITERATIONS]
    status = run(arguments[0], *rest, *arguments[1:]) if arguments[1:2] == ['--sets'] else run(*arguments, *rest)
    assert isinstance(status, str) and '\n' not in status, status
    with pytest.raises(InputError, match=said):
        raise InputError(status)
    assert snapshot(begun) == before


def test_rows_come_in_the_order_of_their_names_and_numbers(tmp_path):
    for name in ('10_x.yml', '9_y.yml', 'b.yml', 'a.yaml', 'notes.txt', '.hidden.yml'):
        (tmp_path / name).touch()
    assert [os.path.basename(file) for file in option_files([str(tmp_path)])] == [
        '9_y.yml',
        '10_x.yml',
        'a.yaml',
        'b.yml',
    ]


@pytest.mark.parametrize('visible, taken', [(None, '2'), ('4,5,6,7', '6'), ('GPU-a,GPU-b', 'GPU-a')])
def test_rank_takes_the_gpu_of_its_place(monkeypatch, visible, taken):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4 if visible is None else len(visible.split(',')))
    monkeypatch.setenv('LOCAL_RANK', '2')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible or '')
    study._take_gpu()
    assert os.environ['CUDA_VISIBLE_DEVICES'] == taken


def test_help_does_not_wait_for_torch():
    done = subprocess.run(
        [sys.executable, '-X', 'importtime', '-m', 'lkdn_basicsr.study', '--help'],
        capture_output=True,
        text=True,
        cwd=ABLATION.parents[1],
    )
    assert done.returncode == 0 and '--iters N' in done.stdout and 'torch' not in done.stderr


@pytest.mark.parametrize('file', sorted(ABLATION.glob('*/*.yml')), ids=lambda file: f'{file.parent.name}/{file.stem}')
def test_shipped_row_is_right(file):
    """Options and network; its data are not here. It differs from the recipe in what the table is about alone."""
    source = read_option_file(file)
    check_schema(source, True)
    check_relations(source, True)
    check_networks(source)
    own = yaml.safe_load(file.read_text())
    allowed = {'table1': {'network_g'}, 'table2': {'network_g'}, 'table3': {'train'}}[file.parent.name]
    assert own.keys() - {'base', 'name'} <= allowed and source.opt['manual_seed'] == 0
    assert f'options/ablation/{file.parent.name}' in file.read_text()


def test_shipped_rows_make_one_study_each_and_together(tmp_path):
    tables = [str(ABLATION / f'table{k}') for k in (1, 2, 3)]
    rows = read_rows(tables, str(tmp_path), 100)
    assert len(rows) == 17 and all(row.iterations == 100 for row in rows)
    assert all(row.source.opt['num_gpu'] == 1 for row in rows)  # else batches would depend on the machine
    assert all(row.source.opt['val']['val_freq'] == row.source.opt['logger']['print_freq'] == 5 for row in rows)

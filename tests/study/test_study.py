"""Studies: runs trained and measured, interrupted and resumed, split across ranks."""

import csv
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from lkdn_basicsr import locks
from lkdn_basicsr.checkpoints import list_training_states
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.locks import FolderLock
from lkdn_basicsr.options.check_networks import check_networks
from lkdn_basicsr.options.check_relations import check_relations
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.option_file import read_option_file
from lkdn_basicsr.study import __main__ as command
from lkdn_basicsr.study.runs import list_option_files, read_runs
from lkdn_basicsr.study.study import Study
from lkdn_basicsr.study.trainer import Trainer, claim
from tests.support import processes
from tests.support.runs import change, same, snapshot, write, write_run

ITERATIONS = 16
ABLATION = Path(__file__).resolve().parents[2] / 'options/ablation'


def make_home(folder):
    """Write images and the option files of two runs: ``table/1_a.yml``, and ``table/2_b.yml`` with SGD."""
    write_run(folder)
    for name in ('sets/held', 'table'):
        (folder / name).mkdir(parents=True)
    (folder / 'val/gt').rename(folder / 'sets/held/GTmod2')
    (folder / 'val/lq').rename(folder / 'sets/held/LRbicx2')
    change(folder, datasets__val__dataroot_gt='sets/held/GTmod2', datasets__val__dataroot_lq='sets/held/LRbicx2')
    change(folder, datasets__val__name='held', network_g__conv='BSConvU', val__val_freq=2)
    write(folder / 'table/1_a.yml', dict(base='../train.yml', name='a'))
    sgd = dict(optim_g=dict(type='SGD', lr=0.1, momentum=0.9))
    write(folder / 'table/2_b.yml', dict(base='../train.yml', name='b', network_g=dict(conv='BSConvU_rep'), train=sgd))
    return folder


def study(*arguments):
    """Run the command in this process, which trains in subprocesses; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['study', *map(str, arguments)])
        patch.setattr(sys, 'excepthook', sys.excepthook)
        try:
            command.main()
        except SystemExit as end:
            return end.code


def study_in_child(folder, arguments):
    processes.work_in(folder)
    sys.argv = ['study', *arguments]
    command.main()


def read_table(out):
    with open(out / 'table.csv') as file:
        return list(csv.DictReader(file))


def read_record(out, name):
    return json.loads((out / f'experiments/{name}/study.json').read_text())


def outcome(out):
    """What must not depend on interruptions or the number of processes: table, networks and curves."""
    table = [{key: value for key, value in row.items() if key not in ('latency', 'seconds')} for row in read_table(out)]
    networks = [torch.load(out / f'experiments/{name}/models/net_g_latest.pth', weights_only=True) for name in 'ab']
    return {'table': table, 'networks': networks, 'curves': [read_record(out, name)['curves'] for name in 'ab']}


@pytest.fixture(scope='module')
def finished_study(tmp_path_factory):
    """A folder with images, option files, and in ``out`` a study that was never interrupted."""
    home = make_home(tmp_path_factory.mktemp('study'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert study('table', '--iters', ITERATIONS, '--out', 'out') is None
    return home


@pytest.fixture
def home(finished_study, monkeypatch):
    monkeypatch.chdir(finished_study)
    return finished_study


@pytest.fixture
def prepared_study(tmp_path, monkeypatch):
    """A folder with images, option files, and in ``out`` a study whose runs have not trained yet."""
    monkeypatch.chdir(make_home(tmp_path))
    for run in read_runs(['table'], 'out', ITERATIONS):
        run.prepare()
    return tmp_path


@pytest.mark.slow
def test_study_writes_table_curves_and_page(home):
    _, a, b = table = read_table(home / 'out')
    assert [row['method'] for row in table] == ['Bicubic', 'a', 'b']
    assert a['params'] == b['params'] != ''  # b is re-parameterizable, and is measured fused
    assert 10 < float(a['held_psnr']) < 50 and a['held_psnr'] != b['held_psnr']
    assert '| a ' in (home / 'out/table.md').read_text() and '<html' in (home / 'out/index.html').read_text().lower()
    assert cv2.imread(str(home / 'out/curves.png')) is not None
    record = read_record(home / 'out', 'a')
    assert record.keys() == {'options', 'seconds', 'curves'}
    assert [step for step, _ in record['curves']['held']] == list(range(1, ITERATIONS + 1))
    # The last point is of the network in the table; its PSNR was logged in single precision.
    assert record['curves']['held'][-1][1] == pytest.approx(float(a['held_psnr']), abs=6e-3)
    assert 0 < record['seconds'] < 60
    assert not (home / 'experiments').exists() and not (home / 'tb_logger').exists()


@pytest.mark.slow
def test_interrupted_ranks_resume_and_match_an_uninterrupted_process(home):
    out, arguments = home / 'killed', ['table', '--iters', str(ITERATIONS), '--out', 'killed']

    def start(_rank):
        return study_in_child, str(home), arguments

    ranks = processes.start_ranks(2, start)
    limit, signals = time.monotonic() + 120, {'a': signal.SIGKILL, 'b': signal.SIGTERM}
    while signals:
        assert time.monotonic() < limit, processes.output(home)
        time.sleep(0.01)
        for name in list(signals):
            states = list_training_states(out / f'experiments/{name}/training_states')
            if any(iteration >= 3 for iteration, _ in states):
                rank = int(re.search(rf'{name}: training on rank (\d)', processes.output(home))[1])
                os.kill(ranks[rank].pid, signals.pop(name))
    for process in ranks:
        process.join()
    assert {process.exitcode for process in ranks} == {-signal.SIGKILL, 143}
    assert 'stopped by SIGTERM; run the same command again to resume' in processes.output(home)
    assert not (out / 'table.md').exists()

    ranks = processes.start_ranks(2, start)  # immediately: a trainer may still be writing
    assert processes.finish(ranks) == [0, 0], processes.output(home)[-3000:]
    assert same(outcome(out), outcome(home / 'out'))
    for name in 'ab':
        log = ''.join(path.read_text() for path in (out / f'experiments/{name}').glob('train_*.log'))
        assert log.count('Resuming training') == 1
    assert sorted(os.listdir(out / 'experiments')) == ['.a.lock', '.b.lock', 'a', 'b']  # none was renamed


@pytest.mark.slow
def test_finished_runs_are_skipped_and_networks_timed_after_all_trainings(home, monkeypatch, capfd):
    again, arguments = home / 'again', ('table', '--iters', ITERATIONS, '--out', 'again')
    shutil.copytree('out', again)
    for path in again.glob('methods/*/cost.json'):
        path.unlink()

    def files():
        return {path: time for path, time in snapshot(again / 'experiments').items() if path.name != '.lock'}

    before = files()

    def costs():
        return [json.loads(path.read_text()) for path in again.glob('methods/*/cost.json')]

    with monkeypatch.context() as patch:
        patch.setattr(Study, 'write_report', lambda *_: None)  # killed before the end
        assert study(*arguments) is None
    assert len(costs()) == 2 and all(cost['params'] and not cost['latency'] for cost in costs())
    assert study(*arguments) is None
    assert all(cost['latency'] for cost in costs()) and same(outcome(again), outcome(home / 'out'))
    assert before == files() and 'INFO' not in capfd.readouterr().out  # of a trainer


@pytest.mark.slow
def test_more_iterations_continue_a_run_and_a_failed_run_does_not_stop_the_others(home, capfd):
    shutil.copytree('out', 'more')
    write('wrong.yml', dict(base='train.yml', name='wrong', train=dict(optim_g=dict(type='SGD', lr=1e25))))
    status = study('wrong.yml', 'table/1_a.yml', '--iters', ITERATIONS + 2, '--out', 'more')
    assert re.search(r'1 of 2 runs failed: wrong \(.*(nan|NaN|inf).*train:optim_g:lr', status)
    assert 'wrong: error: ' in capfd.readouterr().err
    assert [row['method'] for row in read_table(home / 'more')] == ['Bicubic', 'a']
    states = {path.name for path in Path('more/experiments/a/training_states').iterdir()}
    assert states == {f'{ITERATIONS + 1}.state', f'{ITERATIONS + 2}.state'}
    assert 'Resuming training' in max(Path('more/experiments/a').glob('train_*.log')).read_text()


def test_run_is_claimed_by_one_process_at_a_time(prepared_study):
    run, _ = read_runs(['table'], 'out', ITERATIONS)
    for _ in range(2):
        lock = claim(run)
        assert lock is not None and claim(run) is None
        lock.release()
    with FolderLock(run.folder, beside=True):  # the trainer of a study that was killed has not ended yet
        assert claim(run) is None
    assert claim(run) is not None


def test_a_second_study_is_refused_and_changes_nothing(prepared_study, monkeypatch):
    monkeypatch.setattr(locks, 'PATIENCE', 0)
    with FolderLock('out'):
        before = snapshot(prepared_study)
        assert f'out is in use by process {os.getpid()} on ' in study('table', '--iters', ITERATIONS, '--out', 'out')
        assert snapshot(prepared_study) == before


@pytest.mark.slow
def test_trainer_calls_functions_in_processes_of_their_own():
    with Trainer() as trainer:
        assert trainer.call(os.getppid) == os.getpid()
        with pytest.raises(InputError, match='nowhere.yml does not exist'):
            trainer.call(read_option_file, 'nowhere.yml')
        with pytest.raises(InputError, match='^the process that measures was killed by SIGABRT$'):
            trainer.call(os.abort)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ('nowhere.yml', 'nowhere.yml'),
        ('sets', 'sets contains no option file .*: give a folder that does, for example sets/held'),
        ('table table/1_a.yml', r'table/1_a\.yml, line 2: name is a, as in table/1_a\.yml; .* rename one'),
        ('table scale.yml', r'scale\.yml, line 3: scale is 3, but 2 in table/1_a\.yml'),
        ('table typo.yml', r'typo\.yml, line 4: network_g:num_fat'),
        ('table lost.yml', r'lost\.yml, line 5: datasets:train:dataroot_gt'),
        ('table --sets train', 'GTmod2'),
        ('table --sets sets/held sets/held', '--sets: sets/held and sets/held'),
        ('table other.yml', r'other\.yml, line 4: datasets:val is not a folder with GTmodX and LRbicxX.* --sets'),
        ('table --force_yml train:lr=1', '--force_yml: train:lr is not known'),
        ('table --out out --force_yml train:optim_g:lr=1', 'a was .*optim_g:lr: 0.005, and cannot continue with 1:'),
        ('table --out out --iters 5', 'a was started with 16 iterations, more than 5: .*, or remove out/experiments/a'),
        ('table --out train.yml/x', '/train.yml: a part of this path is a file'),
        ('debug.yml', 'name is debug_me'),
    ],
)
def test_invalid_input_is_reported_in_one_line_and_nothing_is_written(prepared_study, arguments, message):
    for name, options in (
        ('scale', dict(scale=3, network_g=dict(upscale=3), datasets=dict(train=dict(gt_size=18)))),
        ('typo', dict(network_g=dict(num_fat=3))),
        ('lost', dict(datasets=dict(train=dict(dataroot_gt='lost')))),
        ('other', dict(datasets=dict(val=dict(dataroot_gt='train/gt', dataroot_lq='train/lq')))),
        ('debug', dict(name='debug_me')),
    ):
        write(f'{name}.yml', dict(base='train.yml', name=name) | options)
    before = snapshot(prepared_study)
    status = study('--out', 'never', '--iters', ITERATIONS, *arguments.split())  # the last one of an option counts
    assert isinstance(status, str) and '\n' not in status and re.search(message, status), status
    assert snapshot(prepared_study) == before


STARTED = {'options': {'train': {'total_iter': ITERATIONS}}}
RECORDS = [
    *('', '{', '3', 'null', '[' * 100_000, '{"options": ' + '1' * 5000 + '}'),
    *({}, {'options': None}, {'options': {}}, {'options': {'train': {'total_iter': 'x'}}}),
    *(STARTED | {'seconds': value, 'curves': {}} for value in ('x', [], float('nan'))),
    *(STARTED | {'seconds': 1, 'curves': value} for value in ({'\ud800': []}, {'held': [[1, 1e308]]})),
    *(
        STARTED | {'seconds': 1, 'curves': value}
        for value in (None, [], {'held': 3}, {'held': [[1]]}, {'held': [[1, 'x']]})
    ),
]


@pytest.mark.parametrize('record', RECORDS, ids=lambda record: str(record)[:20])
def test_edited_record_of_a_run_is_reported_and_nothing_is_written(prepared_study, record):
    path = prepared_study / 'out/experiments/a/study.json'
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    before = snapshot(prepared_study)
    status = study('table', '--iters', ITERATIONS, '--out', 'out')
    assert re.search(r'error: out/experiments/a/study.json cannot be read \(.+\): remove out/experiments/a to', status)
    assert '\n' not in status and snapshot(prepared_study) == before


def test_option_files_are_in_natural_order(tmp_path):
    for name in ('10_x.yml', '9_y.yml', '9²1.yml', 'b.yml', 'a.yaml', 'notes.txt', '.hidden.yml'):
        (tmp_path / name).touch()
    names = [os.path.basename(file) for file in list_option_files([str(tmp_path)])]
    assert names == ['9_y.yml', '9²1.yml', '10_x.yml', 'a.yaml', 'b.yml']


@pytest.mark.parametrize('prefix', ['', 'options/'])
def test_shipped_option_files_and_folders_are_found_from_any_folder(tmp_path, monkeypatch, prefix):
    monkeypatch.chdir(tmp_path)
    names = [f'{prefix}ablation/table2/3_bsb.yml', f'{prefix}ablation/table3']
    expected = [ABLATION / 'table2/3_bsb.yml', *sorted((ABLATION / 'table3').glob('*.yml'))]
    assert list(map(Path, list_option_files(names))) == expected
    assert [run.name for run in read_runs(names, 'out')][:2] == ['BSB', 'Adan']
    Path(prefix, 'ablation/table3').mkdir(parents=True)
    Path(prefix, 'ablation/table3/own.yml').touch()
    assert list_option_files(names[1:]) == [f'{prefix}ablation/table3/own.yml']  # a path comes first


@pytest.mark.parametrize('visible, selected', [(None, '2'), ('4,5,6,7', '6'), ('GPU-a,GPU-b', 'GPU-a')])
def test_rank_uses_the_gpu_of_its_local_rank(monkeypatch, visible, selected):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4 if visible is None else len(visible.split(',')))
    monkeypatch.setenv('LOCAL_RANK', '2')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible or '')
    command.select_gpu()
    assert os.environ['CUDA_VISIBLE_DEVICES'] == selected


@pytest.mark.parametrize('file', sorted(ABLATION.glob('*/*.yml')), ids=lambda file: f'{file.parent.name}/{file.stem}')
def test_shipped_option_file_is_valid_and_changes_only_what_its_table_compares(file):
    source = read_option_file(file)
    check_schema(source, True)
    check_relations(source, True)
    check_networks(source)
    allowed = {'table1': {'network_g'}, 'table2': {'network_g'}, 'table3': {'train'}}[file.parent.name]
    assert yaml.safe_load(file.read_text()).keys() - {'base', 'name'} <= allowed and source.opt['manual_seed'] == 0
    assert f'options/ablation/{file.parent.name}' in file.read_text()


def test_shipped_option_files_make_one_study(tmp_path):
    runs = read_runs([str(ABLATION / f'table{k}') for k in (1, 2, 3)], str(tmp_path), 100)
    assert len(runs) == 17 and all(run.iterations == 100 for run in runs)
    options = [run.option_file.opt for run in runs]
    assert all(opt['num_gpu'] == 1 for opt in options)  # batches must not depend on the machine
    assert all(opt['val']['val_freq'] == opt['logger']['print_freq'] == 5 for opt in options)

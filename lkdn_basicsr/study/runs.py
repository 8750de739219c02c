"""The runs of a study: their option files, read and checked together, and the record of each run."""

import dataclasses
import json
import os
import re
import statistics
from collections.abc import Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from lkdn_basicsr.checkpoints import list_training_states
from lkdn_basicsr.errors import InputError, one_line, printable
from lkdn_basicsr.files import write_file
from lkdn_basicsr.options.check_data import check_data
from lkdn_basicsr.options.check_networks import check_checkpoints, check_networks
from lkdn_basicsr.options.check_relations import check_relations
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.diff import changes, plain
from lkdn_basicsr.options.option_file import (
    OptionFile,
    RunOptions,
    dump_yaml,
    find_option_file,
    force_options,
    read_option_file,
)
from lkdn_basicsr.options.parse import check_outputs, set_derived_options, set_num_gpu
from lkdn_basicsr.structure import NATURAL, is_plain, matches, read_json

MIN_CURVE_POINTS = 20
# Options that may change when a run is continued: they do not affect what it has already learned.
LOADING = ('num_worker_per_gpu', 'prefetch_mode', 'num_prefetch_queue', 'pin_memory', 'persistent_workers')
CHANGEABLE = ['train:total_iter', 'val:val_freq', 'val:pbar', 'logger:*', 'dist_params*']
CHANGEABLE += [f'datasets:train:{name}' for name in LOADING]


@dataclasses.dataclass
class Record:
    """What a study records of a run, in ``study.json``."""

    options: dict[str, Any]  # of the option file, with the settings of the study
    trained: bool = False
    seconds: float | None = None  # of the training; None if they are not known
    curves: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)  # see StudyRun.read_events


_STARTED = {'options': {'train': {'total_iter': NATURAL}}}
_TRAINED = _STARTED | {'seconds': float | None, 'curves': {str: [(NATURAL, float)]}}


class StudyRun:
    """One training of a study: checked options, with the settings of the study, and its paths in the folder ``out``."""

    def __init__(self, option_file: OptionFile, out: str) -> None:
        self.option_file, self.out = option_file, out
        self.name: str = option_file.opt['name']
        self.key = f'study run {self.name}'  # of the state of the run in the store of the ranks
        self.scale: int = option_file.opt['scale']
        self.iterations: int = option_file.opt['train']['total_iter']
        self.folder = os.path.join(out, 'experiments', self.name)  # of the trainer
        self.events = os.path.join(out, 'tb_logger', self.name)  # of TensorBoard
        self.options_path = os.path.join(out, 'options', f'{self.name}.yml')  # for the trainer
        self.record_file = os.path.join(self.folder, 'study.json')

    @property
    def checkpoint(self) -> str:
        """The network to measure: the fused form if the model class writes one."""
        models = os.path.join(self.folder, 'models')
        fused = os.path.join(models, 'net_g_latest_fused.pth')
        return fused if os.path.isfile(fused) else os.path.join(models, 'net_g_latest.pth')

    def read_record(self) -> 'Record | None':
        """Return the record of the run, or None if it was not started."""
        try:
            contents = read_json(self.record_file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise self._unreadable(one_line(error)) from None
        trained = isinstance(contents, dict) and 'seconds' in contents
        if not matches(contents, _TRAINED if trained else _STARTED) or not is_plain(contents):
            raise self._unreadable('it is not the record of a run')
        if not trained:
            return Record(contents['options'])
        curves = {name: [(step, value) for step, value in points] for name, points in contents['curves'].items()}
        return Record(contents['options'], True, contents['seconds'], curves)

    def _unreadable(self, reason: str) -> InputError:
        return InputError(f'{self.record_file} cannot be read ({reason}): remove {self.folder} to train this run again')

    def write_record(self, record: 'Record') -> None:
        contents: dict[str, Any] = {'options': record.options}
        if record.trained:
            contents |= {'seconds': record.seconds, 'curves': record.curves}
        write_file(self.record_file, json.dumps(contents, indent=1).encode())

    def prepare(self) -> 'Record':
        """Write the option file of the trainer and return the record, which is a new one if the options changed."""
        record, options = self.read_record(), plain(self.option_file.opt)
        if record is None or record.options != options:
            record = Record(options)
            # The trainer renames an experiment's folder that lacks this one.
            os.makedirs(os.path.join(self.folder, 'models'), exist_ok=True)
            self.write_record(record)
        files = printable(', based on '.join(self.option_file.files))
        header = f'# {self.name}: {files}; with the settings of the study.\n'
        write_file(self.options_path, header + dump_yaml(self.option_file.opt))
        return record

    def check_record(self) -> None:
        """Raise InputError if the run was started with other options, with more iterations, or not by a study."""
        record = self.read_record()
        if record is None:
            if list_training_states(os.path.join(self.folder, 'training_states')):
                raise InputError(f'{self.folder} contains a training that no study started: give another --out')
            return
        fix = f'give another --out, or remove {self.folder} to train this run again'
        for name, old, new in changes(record.options, plain(self.option_file.opt)):
            if not any(fnmatchcase(name, pattern) for pattern in CHANGEABLE):
                raise InputError(f'{self.name} was started with {name}: {old}, and cannot continue with {new}: {fix}')
        old = record.options['train']['total_iter']
        if self.iterations < old:
            raise InputError(f'{self.name} was started with {old} iterations, more than {self.iterations}: {fix}')

    def read_events(self) -> tuple[float | None, dict[str, list[tuple[int, float]]]]:
        """Read the seconds of training and the PSNR curves, by validation dataset, from the TensorBoard files.

        The seconds are the iterations times the median time of one: start, validation, saving and interruptions do not
        count.
        """
        if not os.path.isdir(self.events):  # removed by hand
            return None, {}
        events = EventAccumulator(self.events, size_guidance={SCALARS: 0}).Reload()
        tags = events.Tags()['scalars']
        seconds, curves = None, {}
        if 'speed/iterations_per_second' in tags:
            times = [1 / event.value for event in events.Scalars('speed/iterations_per_second') if event.value > 0]
            seconds = self.iterations * statistics.median(times) if times else None
        metrics = (self.option_file.opt.get('val') or {}).get('metrics') or {}
        metric = next((name for name, options in metrics.items() if options['type'] == 'calculate_psnr'), None)
        for phase, dataset in self.option_file.opt['datasets'].items():
            tag = f'metrics/{dataset["name"]}/{metric}'
            if phase != 'train' and tag in tags:
                curves[dataset['name']] = [(event.step, event.value) for event in events.Scalars(tag)]
        return seconds, curves


def list_option_files(paths: list[str]) -> list[str]:
    """Return the option files of a study: files as given, those of a folder in natural order (2 before 10).

    Args:
        paths: of files and folders, or names of shipped ones, see :func:`find_option_file`.

    Raises:
        InputError: a path does not exist, or a folder contains no option file.
    """
    files = []
    for path in map(find_option_file, paths):
        if not os.path.isdir(path):
            files.append(path)
            continue
        found = [name for name in os.listdir(path) if name.endswith(('.yml', '.yaml')) and not name.startswith('.')]
        if not found:
            folders = sorted(entry.path for entry in os.scandir(path) if entry.is_dir())
            example = f', for example {folders[0]}' if folders else ''
            raise InputError(f'{path} contains no option file (.yml): give a folder that does{example}')
        files += [os.path.join(path, name) for name in sorted(found, key=_natural_key)]
    return files


def _natural_key(name: str) -> list[tuple[bool, int, str]]:
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r'(\d+)', name) if part
    ]


def read_runs(paths: list[str], out: str, iterations: int | None = None, forced: Sequence[str] = ()) -> list[StudyRun]:
    """Read the option files of a study, see :func:`list_option_files`, and check what needs no data.

    In every file, ``iterations`` replaces ``train:total_iter``, and ``forced`` sets options as ``--force_yml`` does.
    Raises InputError if an option file is invalid, or two do not fit in one study.
    """
    runs: dict[str, StudyRun] = {}
    for file in list_option_files(paths):
        option_file = read_option_file(file)
        force_options(option_file, forced)
        if iterations is not None and isinstance(option_file.opt.get('train'), dict):
            option_file.opt['train']['total_iter'] = iterations
        check_schema(option_file, True)
        check_relations(option_file, True)
        if option_file.opt.get('scale') is None:
            raise option_file.error((), 'has no scale; add it, for example as `scale: 4`')
        _apply_study_settings(option_file.opt)
        run = StudyRun(option_file, out)
        if run.name in runs:
            other = runs[run.name].option_file.path
            raise option_file.error(('name',), f'is {run.name}, as in {other}; names must be unique, so rename one')
        if run.name.startswith('debug'):
            raise option_file.error(('name',), f'is {run.name}, but debug marks a short test run; rename it')
        first = next(iter(runs.values()), run)
        if run.scale != first.scale:
            other = f'{first.scale} in {first.option_file.path}'
            raise option_file.error(('scale',), f'is {run.scale}, but {other}; start one study for each scale')
        runs[run.name] = run
    return list(runs.values())


def _apply_study_settings(opt: dict[str, Any]) -> None:
    """Set, in place, what a study needs: points for the curves, checkpoints to resume from, one seed, one GPU."""
    interval = max(1, opt['train']['total_iter'] // MIN_CURVE_POINTS)
    for block, key in (('val', 'val_freq'), ('logger', 'print_freq'), ('logger', 'save_checkpoint_freq')):
        if opt.get(block) is not None:
            opt[block][key] = min(opt[block][key], interval)
    opt['logger']['use_tb_logger'] = True
    opt['logger'].setdefault('keep_checkpoints', 2)
    if opt['manual_seed'] is None:
        opt['manual_seed'] = 0
    if opt['num_gpu'] == 'auto':  # earlier releases recorded it as 1 in study.json
        opt['num_gpu'] = 1


def check_runs(runs: list[StudyRun]) -> None:
    """Check records, data, networks and weights of all runs; change nothing on disk.

    Raises InputError if a check fails.
    """
    checked = []
    for run in runs:
        run.check_record()
        option_file = deepcopy(run.option_file)
        opt = option_file.opt = RunOptions(option_file.opt)
        opt.update(is_train=True, auto_resume=True)
        set_num_gpu(opt)
        set_derived_options(opt, run.out, True)
        check_outputs(opt, True)
        check_networks(option_file)
        data = (opt['datasets'], opt.get('val'))
        if data not in checked:  # most runs share their data, and reading it takes long
            check_data(option_file)
            checked.append(data)
        resuming = bool(list_training_states(opt['path']['training_states']))
        check_checkpoints(option_file, True, resuming=resuming)


def benchmark_folders(runs: list[StudyRun]) -> list[str]:
    """Return the folders with ``GTmodX`` and ``LRbicxX`` that all runs validate on; raise InputError without such."""
    folders = _validation_folders(runs[0])
    for run in runs[1:]:
        own = _validation_folders(run)
        if own != folders:
            both = f'{", ".join(own)}, but {runs[0].option_file.path} on {", ".join(folders)}'
            raise run.option_file.error(('datasets',), f'validates on {both}; give the benchmarks with --sets')
    return folders


def _validation_folders(run: StudyRun) -> list[str]:
    folders = []
    for phase, dataset in run.option_file.opt['datasets'].items():
        if phase == 'train':
            continue
        gt, lq = (os.path.expanduser(dataset.get(key, '')).rstrip('/') for key in ('dataroot_gt', 'dataroot_lq'))
        folder = os.path.dirname(gt)
        if [gt, lq] != [os.path.join(folder, f'{kind}{run.scale}') for kind in ('GTmod', 'LRbicx')]:
            reason = 'is not a folder with GTmodX and LRbicxX, so it cannot be used as a benchmark'
            raise run.option_file.error(('datasets', phase), f'{reason}; give the benchmarks with --sets')
        folders.append(folder or '.')
    if not folders:
        raise run.option_file.error(('datasets',), 'has no validation dataset; give the benchmarks with --sets')
    return folders

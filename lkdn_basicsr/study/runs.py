"""The rows of a study: option files read and checked together, and what is known of a row that was begun before."""

import dataclasses
import json
import os
import re
from copy import deepcopy
from fnmatch import fnmatchcase

from lkdn_basicsr.checkpoints import list_training_states
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.files import write_file
from lkdn_basicsr.options.check_data import check_data
from lkdn_basicsr.options.check_networks import check_checkpoints, check_networks
from lkdn_basicsr.options.check_relations import check_relations
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.diff import RunOptions, changes, plain
from lkdn_basicsr.options.option_file import OptionFile, dump_yaml, force_options, read_option_file
from lkdn_basicsr.options.parse import set_derived_options, set_num_gpu

POINTS = 20  # on a learning curve
# What a row that was begun may be given otherwise: it trains on, and what it has learnt stays as it is.
FREE = (
    'train:total_iter',
    'val:val_freq',
    'val:pbar',
    'logger:*',
    'dist_params*',
    *(
        f'datasets:train:{key}'
        for key in ('num_worker_per_gpu', 'prefetch_mode', 'num_prefetch_queue', 'pin_memory', 'persistent_workers')
    ),
)


@dataclasses.dataclass
class Row:
    """A row of a study.

    Attributes:
        name (str): ``name`` in its options: its label in tables, and its folder.
        source (OptionFile): its options, checked, with the settings of the study.
        folder (str): ``experiments/NAME`` below the study's, with the trainer's files and the row's record.
        events (str): the folder of its TensorBoard files.
        options_file (str): where its options are written, for the trainer.
    """

    name: str
    source: OptionFile
    folder: str
    events: str
    options_file: str

    @property
    def iterations(self):
        return self.source.opt['train']['total_iter']

    @property
    def scale(self):
        return self.source.opt['scale']

    # -------------------------------------------------- its record ------------------------------------------------- #

    @property
    def record_file(self):
        return os.path.join(self.folder, 'study.json')

    def record(self):
        """What was written down of this row: ``options``, and once it is trained, ``seconds`` and ``curves``; empty
        where nothing was."""
        try:
            with open(self.record_file, encoding='utf-8') as file:
                return json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise InputError(
                f'{self.record_file} cannot be read ({error}): remove {self.folder}, to train this row anew'
            ) from None

    def write_record(self, record):
        write_file(self.record_file, json.dumps(record, indent=1).encode())

    def begin(self):
        """Write down the options, before the trainer starts; returns the record.

        The folder ``models`` tells the trainer that the row's folder is the one to work in, not one to move away.
        """
        record = self.record()
        options = plain(self.source.opt)
        if record.get('options') != options:
            record = {'options': options}
            os.makedirs(os.path.join(self.folder, 'models'), exist_ok=True)
            self.write_record(record)
        os.makedirs(os.path.dirname(self.options_file), exist_ok=True)
        text = (
            f'# {self.name}, merged from {" and ".join(self.source.files)}, with the settings of the study.\n'
            f'{dump_yaml(self.source.opt)}'
        )
        write_file(self.options_file, text.encode())
        return record

    def check_record(self):
        """Whether the row can go on from where it was left.

        Raises:
            InputError: it was begun with other options, or has been trained for longer.
        """
        record = self.record()
        remedy = f'give the study another --out, or remove {self.folder} to train this row anew'
        if not record:
            if list_training_states(os.path.join(self.folder, 'training_states')):
                raise InputError(f'{self.folder} is that of a training outside of this study: give another --out')
            return
        for name, old, new in changes(record['options'], plain(self.source.opt)):
            if not any(fnmatchcase(name, pattern) for pattern in FREE):
                raise InputError(f'{self.name} was begun with {name}: {old}, and is to go on with {new}: {remedy}')
        old = record['options']['train']['total_iter']
        if self.iterations < old:
            raise InputError(f'{self.name} was begun with {old} iterations, more than {self.iterations}: {remedy}')


# -------------------------------------------------- reading and checking -------------------------------------------- #


def option_files(paths):
    """The option files of a study: files as they are given, those of a folder by name.

    Raises:
        InputError: a folder holds none.
    """
    files = []
    for path in paths:
        if not os.path.isdir(path):
            files.append(path)
            continue
        found = [name for name in os.listdir(path) if name.endswith(('.yml', '.yaml')) and not name.startswith('.')]
        if not found:
            inner = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
            raise InputError(
                f'{path} holds no option file (.yml): give a folder that does'
                + (f', as {os.path.join(path, inner[0])}' if inner else '')
            )
        files += [os.path.join(path, name) for name in sorted(found, key=_natural)]
    return files


def _natural(name):
    """10 after 9."""
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r'(\d+)', name) if part]


def read_rows(paths, out, iterations=None, forced=None):
    """Read the option files of a study, and check everything that needs no data.

    Args:
        paths (list[str]): option files, and folders of such.
        out (str): the folder of the study.
        iterations (int | None): in place of every file's ``train:total_iter``. Default: None, the file's.
        forced (list[str] | None): ``--force_yml``, for every row. Default: None.

    Returns:
        list[Row]

    Raises:
        InputError: on the first thing that is wrong in any of them.
    """
    rows = {}
    for file in option_files(paths):
        source = read_option_file(file)
        force_options(source, forced)
        if iterations is not None and isinstance(source.opt.get('train'), dict):
            source.opt['train']['total_iter'] = iterations
        check_schema(source, True)
        check_relations(source, True)
        _settle(source.opt)
        name = source.opt['name']
        if source.opt.get('scale') is None:
            raise source.error((), 'has no scale; add it, for example as `scale: 4`')
        if name in rows:
            raise source.error(
                ('name',),
                f'is {name}, as is that of {rows[name].source.path}; a row is known by its name, so rename one',
            )
        if name.startswith('debug'):
            raise source.error(('name',), f'is {name}, and what begins with debug is a short run; rename it')
        first = next(iter(rows.values()), None)
        if first is not None and first.scale != source.opt['scale']:
            raise source.error(
                ('scale',),
                f'is {source.opt["scale"]}, and that of {first.source.path} is '
                f'{first.scale}; rows of one table have one scale, so study them apart',
            )
        rows[name] = Row(
            name,
            source,
            os.path.join(out, 'experiments', name),
            os.path.join(out, 'tb_logger', name),
            os.path.join(out, 'options', f'{name}.yml'),
        )
    return list(rows.values())


def _settle(opt):
    """What a study sets in all its rows, in place.

    Curves need points: validations, checkpoints and lines in the log come at least ``POINTS`` times. One seed for all
    where the file gives none, and the checkpoints that a resume needs. One GPU: the trainer takes a batch for each, and
    a table would depend on how many there are, and on how its rows are dealt out.
    """
    step = max(1, opt['train']['total_iter'] // POINTS)
    for block, key in (('val', 'val_freq'), ('logger', 'print_freq'), ('logger', 'save_checkpoint_freq')):
        if opt.get(block) is not None:
            opt[block][key] = min(opt[block][key], step)
    opt['logger']['use_tb_logger'] = True
    opt['logger'].setdefault('keep_checkpoints', 2)
    if opt['manual_seed'] is None:
        opt['manual_seed'] = 0
    if opt['num_gpu'] == 'auto':
        opt['num_gpu'] = 1


def check_rows(rows):
    """Check data, networks and weights of all rows, and that those begun before can go on; changes nothing.

    Raises:
        InputError: on the first thing that is wrong.
    """
    seen = []
    for row in rows:
        row.check_record()
        source = deepcopy(row.source)
        source.opt = RunOptions(source.opt)
        source.opt.update(is_train=True, auto_resume=True)
        set_num_gpu(source.opt)
        set_derived_options(source.opt, os.path.dirname(os.path.dirname(row.folder)), True)
        check_networks(source)
        data = (source.opt['datasets'], source.opt.get('val'))
        if data not in seen:  # rows of a table have their data in common, of which a check reads a good part
            check_data(source)
            seen.append(data)
        check_checkpoints(source, True, resuming=bool(list_training_states(source.opt['path']['training_states'])))


def set_folders(rows):
    """The test sets of a study where none are given: those that the rows validate on.

    Returns:
        list[str]: folders that hold ``GTmodX`` and ``LRbicxX``.

    Raises:
        InputError: the rows validate on different sets, or on ones of another layout.
    """
    folders = None
    for row in rows:
        opt, found = row.source.opt, []
        for phase, dataset in opt['datasets'].items():
            if phase == 'train':
                continue
            roots = [os.path.expanduser(dataset.get(key, '')).rstrip('/') for key in ('dataroot_gt', 'dataroot_lq')]
            folder = os.path.dirname(roots[0])
            if roots != [os.path.join(folder, f'{kind}{row.scale}') for kind in ('GTmod', 'LRbicx')]:
                raise row.source.error(
                    ('datasets', phase),
                    'is no folder with GTmodX and LRbicxX, on which the '
                    'trained networks could be tested; name test sets with --sets',
                )
            found.append(folder or '.')
        if not found:
            raise row.source.error(('datasets',), 'has no validation set to test on; name test sets with --sets')
        if folders is not None and folders != found:
            raise row.source.error(
                ('datasets',),
                f'validates on {", ".join(found)}, and {rows[0].source.path} '
                f'on {", ".join(folders)}; name test sets with --sets',
            )
        folders = found
    return folders

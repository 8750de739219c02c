"""What is in effect: the options as an option file, and how they differ from the file of that name that we ship."""

import json
import logging
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.option_file import read_option_file

SHIPPED = Path(__file__).resolve().parents[2] / 'options'  # beside the package in a clone; not there when installed


class RunOptions(OrderedDict):
    """The options of a run, for BasicSR a dictionary.

    Attributes:
        effective (str): They, as the text of an option file that starts the same run.
        notes (list[str]): What is otherwise than it was written; for the log.
        differences (list[str]): How they differ from the shipped file of the same name.
        seed_is_drawn (bool): Whether the file gives no ``manual_seed``; a resume goes on with the one of its state.
    """

    effective, notes, differences, seed_is_drawn = '', (), (), False


def differences_from_shipped(source, is_train):
    """How options differ from the shipped option file of the same file name.

    Args:
        source (OptionFile): That ``check_schema`` has passed.
        is_train (bool): Whether they are to train by.

    Returns:
        list[str]: A line for each; none where no such file is shipped.
    """
    path = SHIPPED / os.path.basename(source.path)
    if not path.is_file():
        return []
    try:
        shipped = read_option_file(path)
        check_schema(shipped, is_train)  # fills in the defaults
    except InputError:
        return []
    return [
        f'{name}: {_shown(ours)} (shipped: {_shown(theirs)})' for name, ours, theirs in changes(source.opt, shipped.opt)
    ]


def _shown(value):
    return value if value == NOT_SET else json.dumps(value, ensure_ascii=False)


def record_effective(opt):
    """Write the options in effect beside the log file, and the notes on them into the log.

    Args:
        opt (dict): What ``parse_options`` gave, when BasicSR has opened its log; elsewhere nothing is done.
    """
    logger = logging.getLogger('basicsr')
    files = [handler.baseFilename for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
    if not files or not isinstance(opt, RunOptions):
        return
    path = Path(files[0]).with_suffix('.yml')
    path.write_text(opt.effective, encoding='utf-8')
    for note in opt.notes:
        logger.warning(note)
    logger.info(f'The options in effect are in {path}.')
    if opt.differences:
        logger.info('Differences from the shipped option file:' + ''.join(f'\n\t{line}' for line in opt.differences))


def plain(value):
    """Options or metrics as plain dictionaries, lists, numbers and texts, which load without running code."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


NOT_SET = 'not set'


def changes(before, after):
    """In which settings two sets of options differ.

    Args:
        before, after (dict): options, with blocks of options in them.

    Yields:
        tuple[str, object, object]: name, as ``train:optim_g:lr``, and both values; ``NOT_SET`` where there is none.
    """
    before, after = dict(_flat(before)), dict(_flat(after))
    for name in [*before, *(name for name in after if name not in before)]:
        old, new = before.get(name, NOT_SET), after.get(name, NOT_SET)
        if old != new:
            yield name, old, new


def _flat(options, prefix=''):
    for key, value in options.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f'{prefix}{key}:')
        else:
            yield f'{prefix}{key}', value

"""What is in effect: the options as an option file, and how they differ from the file of that name that we ship."""

import json
import logging
import os
from collections import OrderedDict
from pathlib import Path

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check import check_options
from lkdn_basicsr.options.read import read_option_file
from lkdn_basicsr.resume import NOT_SET, changes

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
        source (OptionFile): That ``check_options`` has passed.
        is_train (bool): Whether they are to train by.

    Returns:
        list[str]: A line for each; none where no such file is shipped.
    """
    path = SHIPPED / os.path.basename(source.path)
    if not path.is_file():
        return []
    try:
        shipped = read_option_file(path)
        check_options(shipped, is_train)  # fills in the defaults
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

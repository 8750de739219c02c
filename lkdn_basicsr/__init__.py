"""LKDN for BasicSR.

Importing this package puts the networks LKDN and LKDN_S, the model class ReparamSRModel and the data set
PairedCropDataset into BasicSR's registries, and mends what keeps BasicSR 1.4.2 from running on today's stack.
"""

import sys

__version__ = '0.1.0'


def register():
    """Register everything with BasicSR. Importing the package does this; calling it again changes nothing."""
    from lkdn_basicsr import compat

    compat.prepare_import()
    from lkdn_basicsr import archs, data, models, optim, reparam  # noqa: F401

    compat.apply()


# `python -m lkdn_basicsr.train` imports the package before the command. The command registers after it has parsed its
# arguments, so that --help does not wait for torch.
COMMANDS = ('train', 'test', 'study', 'compare')
if not (sys.argv[:1] == ['-m'] and {f'{__name__}.{command}' for command in COMMANDS} & set(sys.orig_argv)):
    register()

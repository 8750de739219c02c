"""LKDN for BasicSR.

Importing this package registers the networks LKDN and LKDN_S, the model class ReparamSRModel and the dataset
PairedCropDataset in BasicSR's registries. ``lkdn_basicsr.compat`` lists what it changes in other packages.
"""

from lkdn_basicsr import compat

__version__ = '0.2.0'

if compat.prepare_import():
    from lkdn_basicsr import archs, data, models, optim, reparam  # noqa: F401

    compat.apply()

    from lkdn_basicsr.training.run import test_pipeline, train_pipeline  # noqa: F401

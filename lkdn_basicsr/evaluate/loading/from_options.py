"""Networks that an option file describes: any of BasicSR's registry, a plugin's included."""

import contextlib
import glob
import os

from basicsr.utils.registry import ARCH_REGISTRY

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.errors import InputError, hint, one_line
from lkdn_basicsr.evaluate.loading.wrappers import pad_to_window, silence
from lkdn_basicsr.options.option_file import read_option_file
from lkdn_basicsr.options.registries import CONSTRUCTOR_ERRORS, registered


def build(source, weights):
    """The network of an option file's ``network_g``, with weights.

    Args:
        source (OptionFile): as it was read; only ``network_g`` and ``model_type`` are looked at.
        weights (dict): keys to tensors; of ours in any form.

    Returns:
        nn.Module: for pictures of any size; ours are fused.

    Raises:
        InputError: it does not describe a network that can be built, or the weights are those of another.
    """
    options = source.opt.get('network_g')
    if not isinstance(options, dict) or not isinstance(options.get('type'), str):
        raise source.error(('network_g',), 'does not describe a network; give its type and arguments')
    known = registered(ARCH_REGISTRY)
    if options['type'] not in known:
        raise source.error(
            ('network_g', 'type'),
            f'is {options["type"]}, which is no known network; {hint(options["type"], list(known))}',
        )
    try:
        with silence():
            network = known[options['type']](**{key: value for key, value in options.items() if key != 'type'})
    except CONSTRUCTOR_ERRORS as error:
        raise source.error(('network_g',), f'is refused by {options["type"]}: {one_line(error)}') from None
    try:
        network, weights = checkpoints.fit(network, weights)
    except CONSTRUCTOR_ERRORS as error:  # InputError, or what another class raises in its own fuse()
        raise source.error(('network_g',), f'does not fit the checkpoint: {one_line(error)}') from None
    network.load_state_dict(weights)
    if isinstance(network, archs.LKDN) or source.opt.get('model_type') == 'ReparamSRModel':
        network = reparam.fuse(network)  # that model class tests the fused network; others may mean another thing by it
    return pad_to_window(network)


def checkpoint_of(source):
    """The file that ``path:pretrain_network_g`` of an option file names, and ``path:param_key_g``.

    The authors' weights are downloaded if they are missing, as for a test.

    Returns:
        tuple[str, str | None]

    Raises:
        InputError: there is none.
    """
    path = source.opt.get('path') or {}
    file = path.get('pretrain_network_g') if isinstance(path, dict) else None
    if not isinstance(file, str):
        raise source.error(('path',), 'has no pretrain_network_g; give the checkpoint of the network')
    file = os.path.expanduser(file)
    checkpoints.ensure(file)
    return file, path.get('param_key_g', 'params')


def run_folder(path):
    """The folder ``NAME`` of the run that a checkpoint ``NAME/models/net_g_*.pth`` was saved by, or None."""
    folder, file = os.path.split(os.path.abspath(path))
    return os.path.dirname(folder) if os.path.basename(folder) == 'models' and file.startswith('net_g_') else None


def option_file_of_run(path):
    """The newest option file with a ``network_g`` in the folder of the run that saved a checkpoint.

    Returns:
        OptionFile | None
    """
    root = run_folder(path)
    files = glob.glob(os.path.join(glob.escape(root), '*.yml')) if root else []
    for file in sorted(files, key=os.path.getmtime, reverse=True):
        with contextlib.suppress(InputError):
            source = read_option_file(file)
            if 'network_g' in source.opt:
                return source
    return None

"""``--check``: what would be trained or tested, opened and built, and nothing written."""

from basicsr.data import build_dataset

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_networks import build_network


def report(opt):
    """Opens the data sets, reads one sample of each, and builds the networks.

    Args:
        opt (RunOptions): What ``parse_options`` has checked.

    Yields:
        str: A line for each thing.

    Raises:
        InputError: A sample cannot be read.
    """
    yield from opt.notes
    for phase, options in opt['datasets'].items():
        dataset = build_dataset(options)
        try:
            sample = dataset[0]
        except InputError:
            raise
        except Exception as error:  # a data set of someone else
            raise InputError(
                f'datasets:{phase}: the first sample cannot be read ({error}); look at its files'
            ) from error
        pictures = len(getattr(dataset, 'pairs', dataset))
        of = '' if pictures == len(dataset) else f', {len(dataset)} sub-images'
        sides = ', '.join(f'{key} {"x".join(map(str, sample[key].shape))}' for key in ('lq', 'gt') if key in sample)
        yield f'datasets:{phase}: {options["name"]}, {pictures} pictures{of}; a sample is {sides}'
    for key, options in opt.items():
        if key.startswith('network_') and isinstance(options, dict):
            count = sum(parameter.numel() for parameter in build_network(options).parameters())
            yield f'{key}: {options["type"]}, {count:,d} parameters'
    for key, value in opt['path'].items():
        if key.startswith('pretrain_network') and value:
            yield f'path:{key}: {value}'
    yield 'nothing is wrong'

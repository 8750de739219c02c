"""``--check``: report what would be trained or tested; opens the data, builds the networks, writes nothing."""

from collections.abc import Iterator

from basicsr.data import build_dataset

from lkdn_basicsr.errors import InputError, one_line
from lkdn_basicsr.options.check_networks import build_network
from lkdn_basicsr.options.option_file import RunOptions


def report(opt: RunOptions) -> Iterator[str]:
    """Open the datasets, read one sample of each, build the networks, and yield a line for each.

    Raises:
        InputError: A sample cannot be read.
    """
    yield f'option file: {opt.option_file}'
    yield from opt.notes
    for phase, options in opt['datasets'].items():
        dataset = build_dataset(options)
        try:
            sample = dataset[0]
        except InputError:
            raise
        except Exception as error:  # a dataset class of another plugin may raise anything
            reason = f'the first sample cannot be read ({one_line(error)}); check its files'
            raise InputError(f'datasets:{phase}: {reason}') from error
        images = len(getattr(dataset, 'pairs', dataset))
        sub_images = '' if images == len(dataset) else f', {len(dataset)} sub-images'
        shapes = ', '.join(f'{key} {"x".join(map(str, sample[key].shape))}' for key in ('lq', 'gt') if key in sample)
        yield f'datasets:{phase}: {options["name"]}, {images} images{sub_images}; a sample is {shapes}'
    for key, options in opt.networks().items():
        count = sum(parameter.numel() for parameter in build_network(options).parameters())
        yield f'{key}: {options["type"]}, {count:,d} parameters'
    for key, value in opt['path'].items():
        if key.startswith('pretrain_network') and value:
            yield f'path:{key}: {value}'
    yield 'No problems found.'

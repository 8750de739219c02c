"""The dry run: all that a run needs is built and used once in memory, before anything on disk changes."""

import contextlib
import io
import logging
import os
import random
import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any, cast

import torch
from basicsr.data import build_dataset
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils.logger import initialized_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch.utils.data import DataLoader, Dataset, default_collate

from lkdn_basicsr.data.sampler import SampleIndex
from lkdn_basicsr.data.wrapped_dataset import name_errors
from lkdn_basicsr.devices import exact_arithmetic, total_memory
from lkdn_basicsr.errors import InputError, one_line, system_error
from lkdn_basicsr.options.check_losses import has_weights
from lkdn_basicsr.options.check_networks import build_network
from lkdn_basicsr.options.option_file import Keys, OptionFile, RunOptions
from lkdn_basicsr.options.registries import registered
from lkdn_basicsr.options.schema import CLOSED_MODELS
from lkdn_basicsr.training import state
from lkdn_basicsr.training.loaders import seed_by_position
from lkdn_basicsr.training.model import model_class
from lkdn_basicsr.training.resume import START_AGAIN
from lkdn_basicsr.training.signals import ignore_in_worker
from lkdn_basicsr.training.validation import measure_image, super_resolve, to_images

if TYPE_CHECKING:
    from lkdn_basicsr.training.run import Run

LQ_SIDE = 64  # pixels per side of the LQ images that the dry run super-resolves; larger ones are cropped


def dry_run(run: 'Run', option_file: OptionFile, smallest: dict[str, int]) -> list[str]:
    """Build datasets, model, losses and optimizer for real, and use each once.

    The first and a random sample of each dataset are read; the model loads its checkpoint or the training state that
    the run resumes from; it takes one training step with two samples, and super-resolves and measures an image of each
    validation dataset. All of this is done with copies: random states and files stay what they are.

    Args:
        smallest: index of the smallest image of each validation dataset where it is known, from ``check_data``.

    Returns:
        A line about each dataset and network.

    Raises:
        InputError: the message names the option that is responsible.
    """
    opt = deepcopy(option_file.opt)
    opt['dist'], opt['num_gpu'] = False, min(opt['num_gpu'], 1)  # of several ranks only the first one does this
    weights = {key: file for key, file in opt['path'].items() if key.startswith('pretrain_network') and file}
    opt['path'].update(
        (key, None) for key, file in weights.items() if not os.path.exists(file)
    )  # see check_checkpoints
    device = torch.device('cuda' if opt['num_gpu'] else 'cpu')
    with _without_traces(device):
        sizes = {key: _check_size(option_file, key, options, device) for key, options in opt.networks().items()}
        samples = _read_samples(option_file, opt, smallest)
        train = next((phase for phase, dataset in opt['datasets'].items() if dataset['phase'] == 'train'), None)
        if train is not None:
            _check_batch_size(option_file, train, samples[train][1][0], device)
        model = _build_model(run, option_file, opt)
        if train is not None and isinstance(model, SRModel):
            _check_output(option_file, model, default_collate(samples[train][1]))
        for phase, (_, images) in samples.items():
            if phase != train and isinstance(model, SRModel):
                _validate(option_file, phase, model, images[-1])
        if train is not None:
            _train(option_file, model, default_collate(samples[train][1]))
    lines = []
    for phase, (dataset, images) in samples.items():
        count = len(getattr(dataset, 'pairs', dataset))
        sub_images = '' if count == len(dataset) else f', {len(dataset)} sub-images'
        shapes = ', '.join(f'{key} {_size(images[0][key])}' for key in ('lq', 'gt') if key in images[0])
        name = opt['datasets'][phase]['name']
        lines.append(f'datasets:{phase}: {name}, {count} images{sub_images}; a sample is {shapes}')
    lines += [f'{key}: {opt[key]["type"]}, {size:,d} parameters' for key, size in sizes.items()]
    return [*lines, *(f'path:{key}: {file}' for key, file in weights.items())]


@contextlib.contextmanager
def _without_traces(device: torch.device) -> Iterator[None]:
    """Discard what is logged and printed, and restore the random states."""
    states, loggers, logger = state.random_states(device), dict(initialized_logger), logging.getLogger('basicsr')
    initialized_logger['basicsr'] = logger.disabled = True  # BasicSR would open the log, and not open it again later
    try:
        with warnings.catch_warnings(action='ignore'), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.disabled = False
        initialized_logger.clear()
        initialized_logger.update(loggers)
        state.set_random_states(states, device)
        if device.type == 'cuda':
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _blame(option_file: OptionFile, keys: Keys, problem: str) -> Iterator[None]:
    """Convert any exception to an InputError about the option at ``keys``, of which ``problem`` says what is wrong."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # classes of BasicSR and of other plugins raise anything
        if 'killed by signal' not in str(error) and system_error(error):
            raise
        # That of a worker contains its traceback, of which the last line is the message.
        text = str(error).strip().splitlines()[-1] if 'Original Traceback' in str(error) else str(error)
        raise option_file.error(keys, f'{problem} ({one_line(text or type(error).__name__)})') from error


def _check_size(option_file: OptionFile, key: str, options: dict[str, Any], device: torch.device) -> int:
    """Return the number of parameters of a network, which must fit into the memory."""
    count = sum(parameter.numel() for parameter in build_network(options).parameters())
    copies = 3 if option_file.opt['is_train'] else 1  # weights, gradients, and at least one state of the optimizer
    _check_fits(option_file, (key,), f'gives a network of {count:,} parameters', 4 * copies * count, device)
    return count


def _check_batch_size(option_file: OptionFile, phase: str, sample: dict[str, Any], device: torch.device) -> None:
    size = option_file.opt['datasets'][phase]['batch_size_per_gpu']
    values = sum(value.numel() for value in sample.values() if torch.is_tensor(value))
    keys = ('datasets', phase, 'batch_size_per_gpu')
    _check_fits(
        option_file, keys, f'is {size}, which gives batches of {size * values:,} values', 4 * size * values, device
    )


def _check_fits(option_file: OptionFile, keys: Keys, problem: str, needed: int, device: torch.device) -> None:
    memory = total_memory(device)
    if needed > memory:
        sizes = f'at least {needed / 2**30:,.0f} GiB of memory, and there are {memory / 2**30:,.0f} GiB'
        raise option_file.error(keys, f'{problem}: they need {sizes}; make it smaller')


class _Samples(Dataset):
    """The samples of all datasets, by phase and index."""

    def __init__(self, datasets: dict[str, Any]) -> None:
        self.datasets = datasets

    def __getitem__(self, place: tuple[str, int]) -> dict[str, Any]:
        phase, index = place
        return self.datasets[phase][index]


def _read_samples(
    option_file: OptionFile, opt: RunOptions, smallest: dict[str, int]
) -> dict[str, tuple[Any, list[dict[str, Any]]]]:
    """Return each dataset, and its first, a random and its smallest sample; the training dataset has no smallest one.

    They are read in workers, because an LMDB can be opened once in a process, and what is damaged may end it.
    """
    found: dict[str, tuple[Any, list[dict[str, Any]]]] = {}
    places: dict[bool, list[tuple[str, int]]] = {False: [], True: []}  # those read by workers of the run, or by itself
    for phase, dataset_opt in opt['datasets'].items():
        with _blame(option_file, ('datasets', phase), 'cannot be opened'):
            dataset = name_errors(build_dataset(dataset_opt))
        chosen: list[int] = [0, random.Random(opt['manual_seed']).randrange(len(dataset))]
        if dataset_opt['phase'] == 'train':
            dataset = seed_by_position(dataset)
            chosen = [SampleIndex(index, position, opt['manual_seed']) for position, index in enumerate(chosen)]
        elif phase in smallest:
            chosen.append(smallest[phase])
        has_workers = dataset_opt['phase'] == 'train' and dataset_opt['num_worker_per_gpu'] > 0
        places[has_workers] += [(phase, index) for index in chosen]
        found[phase] = dataset, []
    datasets = _Samples({phase: dataset for phase, (dataset, _) in found.items()})
    worker: dict[str, Any] = {'num_workers': 1, 'worker_init_fn': ignore_in_worker, 'generator': torch.Generator()}
    for group in filter(None, places.values()):
        samples = iter(DataLoader(datasets, None, sampler=cast(Any, group), **worker))
        for phase, _ in group:
            with _blame(option_file, ('datasets', phase), 'has a sample that cannot be read'):
                found[phase][1].append(next(samples))
    return found


def _build_model(run: 'Run', option_file: OptionFile, opt: RunOptions) -> BaseModel:
    """Build the model of a run, with its checkpoint or training state."""

    class DryRunModel(model_class(registered(MODEL_REGISTRY)[opt['model_type']], run)):  # type: ignore[misc]
        def load_network(self, net: Any, load_path: str, *args: Any, **kwargs: Any) -> None:
            with _blame(option_file, ('network_g',), f'does not fit {load_path}'):
                super().load_network(net, load_path, *args, **kwargs)

        def get_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
            with _blame(option_file, ('train', 'optim_g'), 'is refused for the parameters of network_g'):
                return super().get_optimizer(*args, **kwargs)

    if opt['is_train'] and opt['model_type'] in CLOSED_MODELS:
        _build_losses(option_file, opt['train'])
    with _blame(option_file, ('model_type',), f'is {opt["model_type"]}, which cannot be built'):
        model = DryRunModel(opt)
    if run.resume_state is not None:
        with _blame(option_file, (), f'does not fit the training state of iteration {run.iteration}; {START_AGAIN}'):
            model.resume_training(deepcopy(run.resume_state))  # optimizers change the tensors that they load
    return model


def _build_losses(option_file: OptionFile, train: dict[str, Any]) -> None:
    """Build each loss; ``--check`` does not download weights, and leaves out what needs them."""
    for key, options in train.items():
        if key.endswith('_opt') and options and not has_weights(options):
            train[key] = None
        elif key.endswith('_opt') and options:
            with _blame(option_file, ('train', key), f'is refused by {options["type"]}'):
                build_loss(options)
    if not train.get('pixel_opt') and not train.get('perceptual_opt'):
        train['pixel_opt'] = {'type': 'L1Loss'}


def _check_output(option_file: OptionFile, model: SRModel, batch: dict[str, Any]) -> None:
    """Check that the network turns the training samples into images of the size of their ground truth."""
    size = ', '.join(f'{key} {_size(batch[key])}' for key in ('lq', 'gt'))
    model.feed_data(batch)
    with _blame(option_file, ('network_g',), f'fails with training samples, {size}'), torch.no_grad():
        output = model.net_g(model.lq)
    if getattr(output, 'shape', None) != model.gt.shape:
        problem = f'gives {_size(output)} for training samples, {size}'
        raise option_file.error(('network_g',), f'{problem}; correct upscale, num_in_ch, num_out_ch or type')
    if not torch.isfinite(output).all():
        raise option_file.error(('network_g',), 'gives NaN or infinite values; check path:pretrain_network_g')


def _train(option_file: OptionFile, model: BaseModel, batch: dict[str, Any]) -> None:
    """Take a training step."""
    for optimizer in model.optimizers:
        _blame_steps(option_file, optimizer)
    with _blame(option_file, ('train',), 'fails in the first training step'):
        model.feed_data(batch)
        model.optimize_parameters(1)


def _blame_steps(option_file: OptionFile, optimizer: torch.optim.Optimizer) -> None:
    step = optimizer.step

    def blamed() -> None:
        with _blame(option_file, ('train', 'optim_g'), f'cannot train network_g with {type(optimizer).__name__}'):
            step()

    optimizer.step = blamed  # type: ignore[assignment, method-assign]


def _validate(option_file: OptionFile, phase: str, model: SRModel, sample: dict[str, Any]) -> None:
    """Super-resolve a sample, or a crop of it, and measure the result."""
    dataset = option_file.opt['datasets'][phase]
    name = f'{os.path.splitext(os.path.basename(sample["lq_path"]))[0]} of {dataset["name"]}'
    data = default_collate([sample])
    sides = {'lq': LQ_SIDE, 'gt': LQ_SIDE * dataset.get('scale', 1)}
    data |= {key: data[key][..., :side, :side] for key, side in sides.items() if key in data}
    problem = f'has an image that network_g fails with, {name} (lq {_size(sample["lq"])})'
    with _blame(option_file, ('datasets', phase), problem), exact_arithmetic():
        visuals = super_resolve(model, data, name)
    with _blame(option_file, ('val', 'metrics'), f'cannot be computed for {name}'):
        measure_image(to_images(visuals), (option_file.opt['val'] or {}).get('metrics') or {}, name)


def _size(value: Any) -> str:
    return 'x'.join(map(str, value.shape)) if hasattr(value, 'shape') else f'a {type(value).__name__}'

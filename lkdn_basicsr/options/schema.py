"""Every option: its type, default, range and meaning.

``check_schema.py`` checks option files against this table, and ``docs.py`` makes ``docs/options.md`` from it. To add an
option, add an entry.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAX_NUMBER, MAX_INT = 3e38, 10**15  # the largest numbers of float32; the integers that float64 represents
REQUIRED, ABSENT = object(), object()  # defaults: the file must have the option; an option that is missing stays so


@dataclass(frozen=True, slots=True)
class Option:
    """An entry of the table."""

    key: str  # may contain *: pretrain_network_* is one option for each network
    kind: str  # names in KINDS, separated by |
    text: str  # meaning, for the docs and for the message about a missing option
    default: Any = ABSENT  # REQUIRED, ABSENT, or the value that is filled in
    valid: str | tuple[str, ...] | None = None  # an interval such as (0, 1], or the allowed names

    @classmethod
    def like(cls, key: str, default: Any) -> 'Option':
        """Return an option for an argument that is not in the table, of the type of its default."""
        if isinstance(default, bool):
            return cls(key, 'bool', '')
        if _is_number(default):
            return cls(key, 'number | null', '')
        return cls(key, 'text | null' if isinstance(default, str) else 'any', '')


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of option."""

    accepts: Callable[[Any], bool]
    description: str


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _is_int(value: Any) -> bool:
    # The official files write 5000 as `!!float 5e3`.
    return _is_number(value) and abs(value) < MAX_INT and float(value).is_integer()


def _is_list(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(accepts, value))


KINDS = {
    'int': Kind(_is_int, 'an integer of at most 15 digits'),
    'number': Kind(_is_number, 'a number of at most 3e38'),
    'bool': Kind(lambda value: isinstance(value, bool), 'true or false'),
    'text': Kind(lambda value: isinstance(value, str) and value.strip() != '', 'text'),
    'ints': Kind(_is_list(_is_int), 'a list of integers'),
    'numbers': Kind(_is_list(_is_number), 'a list of numbers'),
    'texts': Kind(_is_list(lambda value: isinstance(value, str)), 'a list of names'),
    'options': Kind(lambda value: isinstance(value, dict), 'a block of options'),
    'auto': Kind(lambda value: value == 'auto', 'auto'),
    'null': Kind(lambda value: value is None, '~ (nothing)'),
    'any': Kind(lambda value: True, 'anything'),
}

_IMAGES = (
    Option('mean', 'numbers | null', 'Subtracted from the images, one value for each channel (0 to 1).'),
    Option('std', 'numbers | null', 'The images are divided by this, one value for each channel (0 to 1).'),
    Option('color', 'text | null', '`y`: train and test on the luma channel only.', valid=('y', 'rgb')),
    Option('meta_info_file', 'text | null', 'Text file with the names of the images to use, one in a line.'),
)
_PAIRED = (
    Option('dataroot_gt', 'text', 'Folder or store of the ground truth (HR).', REQUIRED),
    Option('dataroot_lq', 'text', 'Folder or store of the low-quality images (LR).', REQUIRED),
    Option('filename_tmpl', 'text', "Name of the LR image of an HR image: `'{}x4'` for 0001x4.png. Default: `'{}'`."),
    *_IMAGES,
    Option('gt_size', 'int', 'Side of HR patches, a multiple of `scale`; training needs it.', valid='[1, inf)'),
    Option('use_hflip', 'bool', 'Random horizontal flips in training. Default there: true.'),
    Option('use_rot', 'bool', 'Random vertical flips and transposition in training. Default there: true.'),
)

_NUM_GPU = 'GPUs without a launcher, each with a batch: `auto` is one, if there is any; 0 is the CPU.'
_PREFETCH_MODE = '`cuda` copies the next batch ahead and needs `pin_memory: true`; on a CPU it becomes `~`.'
_IO_BACKEND = 'Folders of image files, LMDBs, a memcached server, or (PairedCropDataset) raw stores.'
_KEEP = 'How many of the newest checkpoints are kept; net_g_best is kept as well. Default: all.'

# Section: its options. `*` in a section is a name that the option file chooses.
SECTIONS: dict[str, tuple[Option, ...]] = {
    '': (
        Option('base', 'text', 'Option file that this one is based on: its path from this file, or a shipped one.'),
        Option('name', 'text', 'Name of the run and its folder; `debug…` is a short run, as with `--debug`.', REQUIRED),
        Option('model_type', 'text', 'Name in the model registry: `ReparamSRModel`, `SRModel`, …', REQUIRED),
        Option('scale', 'int', 'Upscaling factor. Required with paired data.', valid='[1, inf)'),
        Option('num_gpu', 'int | auto', _NUM_GPU, 'auto', '[0, inf)'),
        Option('manual_seed', 'int | null', 'Seed of the run. Default: drawn at random.', None, '[0, 4294900000]'),
        Option('find_unused_parameters', 'bool', 'Passed to DistributedDataParallel.'),
        Option(
            'datasets', 'options', '`train`, `val`, `val_2`, …; in tests `test`, `test_2`, …; `~` omits one.', REQUIRED
        ),
        Option('network_g', 'options', 'The network.', REQUIRED),
        Option('path', 'options', 'Checkpoints to start from.', {}),
        Option('train', 'options', 'Training. Required for training.'),
        Option('val', 'options | null', 'Validation and test. Without it, training does not validate.'),
        Option('logger', 'options', 'What is logged and saved, and how often.', {}),
        Option('dist_params', 'options | null', 'Distributed training.'),
    ),
    'datasets.*': (
        Option('name', 'text', 'Name of the dataset in the log and in the results folder.', REQUIRED),
        Option('type', 'text', 'Name in the dataset registry: `PairedCropDataset`, `PairedImageDataset`, …', REQUIRED),
        Option('io_backend', 'options', 'How the images are stored.', {'type': 'disk'}),
        Option('scale', 'int', 'Only in files without `scale` at the top.', valid='[1, inf)'),
        Option('num_worker_per_gpu', 'int', 'Workers of each rank or GPU; training needs it.', valid='[0, 1024]'),
        Option('batch_size_per_gpu', 'int', 'Batch size of each rank or GPU; training needs it.', valid='[1, inf)'),
        Option('dataset_enlarge_ratio', 'number', 'How many times an epoch contains each image.', valid='(0, inf)'),
        Option('prefetch_mode', 'text | null', _PREFETCH_MODE, valid=('cpu', 'cuda')),
        Option('num_prefetch_queue', 'int', 'Batches loaded ahead with `prefetch_mode: cpu`.', valid='[1, inf)'),
        Option('pin_memory', 'bool', 'Page-locked batches; false on a CPU.'),
        Option('persistent_workers', 'bool', 'Keep the workers between epochs; needs at least one worker.'),
    ),
    'datasets.* (PairedCropDataset)': (
        *_PAIRED,
        Option('crop_size', 'int', 'Raw stores: side of the sub-images, in HR pixels. Default: 480.', valid='[1, inf)'),
        Option('step', 'int', 'Raw stores: distance between sub-images, in HR pixels. Default: 240.', valid='[1, inf)'),
        Option('thresh', 'int', 'Raw stores: widest remainder that gets no sub-image. Default: 0.', valid='[0, inf)'),
        Option('float32', 'bool', 'Images as floats in [0, 1], for models other than ReparamSRModel.'),
    ),
    'datasets.* (PairedImageDataset)': _PAIRED,
    'datasets.* (SingleImageDataset)': (Option('dataroot_lq', 'text', 'Folder or LMDB of images.', REQUIRED), *_IMAGES),
    'datasets.*.io_backend': (
        Option('type', 'text', _IO_BACKEND, 'disk', ('disk', 'lmdb', 'memcached', 'raw')),
        Option('server_list_cfg', 'text', 'memcached: its server list.'),
        Option('client_cfg', 'text', 'memcached: its client configuration.'),
        Option('sys_path', 'text | null', 'memcached: folder of its Python module.'),
    ),
    'network_*': (Option('type', 'text', 'Name in the architecture registry: `LKDN`, `LKDN_S`, …', REQUIRED),),
    'path': (
        Option('pretrain_network_*', 'text | null', 'Checkpoint of that network. Required for `network_g` in a test.'),
        Option('param_key_*', 'text | null', '`params` (default), `params_ema`, or `~` for a file of weights only.'),
        Option('strict_load_*', 'bool', 'Refuse a checkpoint that does not fit exactly. Default: true.'),
        Option('resume_state', 'text | null', 'Training state (`.state`) to resume from.'),
        Option('resume_override', 'bool', "Resume with this file's optimizer, schedule and seed. Default: false."),
        Option('ignore_resume_networks', 'texts | null', 'Networks that a resume does not load.'),
    ),
    'train': (
        Option('total_iter', 'int', 'Iterations to train.', REQUIRED, '[1, inf)'),
        Option('warmup_iter', 'int', 'Warm-up iterations, before the first milestone; -1: none.', -1, '[-1, inf)'),
        Option('ema_decay', 'number', 'Decay of the moving average of the weights; 0 for none.', 0, '[0, 1)'),
        Option('optim_g', 'options', 'The optimizer.', REQUIRED),
        Option('scheduler', 'options', 'The learning-rate schedule.', REQUIRED),
        Option('pixel_opt', 'options | null', 'Loss on pixels. At least one loss is needed.'),
        Option('perceptual_opt', 'options | null', 'Loss on VGG features.'),
    ),
    'train.optim_*': (
        Option('type', 'text', '`Adan`, or a class of torch.optim.', REQUIRED),
        Option('lr', 'number', 'Learning rate.', REQUIRED, '(0, inf)'),
        Option('weight_decay', 'number', 'Weight decay.', valid='[0, inf)'),
        Option('betas', 'numbers', 'Decay of the running means: two for Adam, three for Adan.', valid='[0, 1)'),
    ),
    'train.scheduler': (
        Option('type', 'text', '`MultiStepLR`, `MultiStepRestartLR` or `CosineAnnealingRestartLR`.', REQUIRED),
        Option('milestones', 'ints', 'MultiStep: iterations at which the rate falls, ascending.', valid='[1, inf)'),
        Option('gamma', 'number', 'MultiStep: factor at a milestone.', valid='(0, inf)'),
        Option('restarts', 'ints', 'MultiStep: iterations at which the schedule restarts.', valid='[0, inf)'),
        Option('restart_weights', 'numbers', 'Factor of the first rate at each restart.', valid='[0, inf)'),
        Option('periods', 'ints', 'Cosine: length of each period; in total at least `total_iter`.', valid='[1, inf)'),
        Option('eta_min', 'number', 'Cosine: lowest rate.', valid='[0, inf)'),
    ),
    'train.*_opt': (
        Option('type', 'text', 'Name in the loss registry: `L1Loss`, …', REQUIRED),
        Option('loss_weight', 'number', 'Factor of the loss.', valid='[0, inf)'),
        Option('reduction', 'text', 'How the values of all pixels are reduced to one.', valid=('mean', 'sum')),
    ),
    'val': (
        Option('val_freq', 'int', 'Training: iterations between validations.', 5000, '[1, inf)'),
        Option('save_img', 'bool', 'Save the images.', False),
        Option('suffix', 'text | null', 'Test: end of the names of saved images. Default: the name of the run.', None),
        Option('pbar', 'bool', 'Show a progress bar.'),
        Option('metrics', 'options | null', 'Metrics, each under a name of your choice.'),
    ),
    'val.metrics.*': (
        Option('type', 'text', 'Name in the metric registry: `calculate_psnr`, `calculate_ssim`, …', REQUIRED),
        Option('better', 'text', 'Which of two values is better. Default: higher.', valid=('higher', 'lower')),
        Option('crop_border', 'int', 'Pixels ignored at each edge; usually `scale`.', valid='[0, inf)'),
        Option('test_y_channel', 'bool', 'Measure on the luma channel only, as papers do.'),
    ),
    'logger': (
        Option('print_freq', 'int', 'Iterations between lines in the log.', 100, '[1, inf)'),
        Option('save_checkpoint_freq', 'int', 'Iterations between checkpoints.', 5000, '[1, inf)'),
        Option('keep_checkpoints', 'int | null', _KEEP, valid='[1, inf)'),
        Option('use_tb_logger', 'bool', 'Write TensorBoard files to tb_logger/NAME.', False),
        Option('wandb', 'options | null', 'Weights & Biases.'),
    ),
    'logger.wandb': (
        Option('project', 'text | null', 'Project; needs `use_tb_logger: true`. Default: not used.', None),
        Option('resume_id', 'text | null', 'Run to resume.', None),
        Option('entity', 'text | null', 'Team or user.'),
    ),
    'dist_params': (
        Option('backend', 'text', 'Default: nccl on GPUs. On a CPU always gloo.', valid=('nccl', 'gloo', 'mpi')),
        Option('port', 'int', 'slurm: port of the first node. torchrun uses its own.', valid='[1, 65535]'),
        Option('timeout', 'number', "Seconds to wait for a silent rank. Default: torch's.", valid='(0, 1e9]'),
    ),
}

PAIRED = ('PairedImageDataset', 'PairedCropDataset')
# Models whose top-level and `train` options are all in the table; other models may have options of their own.
CLOSED_MODELS = ('SRModel', 'SwinIRModel', 'ReparamSRModel')

# Options of BasicSR's other datasets besides those of `datasets.*`; only their names are checked.
_VIDEO = (
    'dataroot_gt dataroot_lq meta_info_file num_frame cache_data padding gt_size use_hflip use_rot interval_list '
    'random_reverse flip_sequence'
)
_DEGRADE = (
    'blur_kernel_size kernel_list kernel_prob blur_sigma betag_range betap_range sinc_prob '
    'blur_kernel_size2 kernel_list2 kernel_prob2 blur_sigma2 betag_range2 betap_range2 sinc_prob2 '
    'final_sinc_prob gt_size use_hflip use_rot'
)
OTHER_DATASETS = {
    'FFHQDataset': 'dataroot_gt mean std use_hflip',
    'RealESRGANDataset': f'dataroot_gt meta_info {_DEGRADE}',
    'RealESRGANPairedDataset': 'dataroot_gt dataroot_lq meta_info filename_tmpl gt_size use_hflip use_rot mean std',
    'REDSDataset': f'{_VIDEO} dataroot_flow val_partition',
    'REDSRecurrentDataset': f'{_VIDEO} dataroot_flow val_partition test_mode',
    'Vimeo90KDataset': _VIDEO,
    'Vimeo90KRecurrentDataset': _VIDEO,
    'VideoTestDataset': _VIDEO,
    'VideoTestVimeo90KDataset': _VIDEO,
    'VideoTestDUFDataset': f'{_VIDEO} use_duf_downsampling',
    'VideoRecurrentTestDataset': _VIDEO,
}

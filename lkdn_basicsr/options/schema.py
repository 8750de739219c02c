"""Every option: its type, its default, its range, and what it is for.

This one table checks option files (``check.py``) and writes ``docs/options.md`` (``docs.py``); a new option is a row.

- ``key`` may end in ``*``: ``pretrain_network_*`` stands for one key for each network.
- ``kind`` names types of ``KINDS``, separated by ``|``.
- ``default``: REQUIRED, ABSENT (the key stays away), or the value that is filled in.
- ``valid``: an interval such as ``(0, 1]`` for numbers (each one of a list), or a tuple of names; None for no bound.
"""

from collections import namedtuple

from lkdn_basicsr.options.option_file import is_finite

Option = namedtuple('Option', 'key kind default valid text')


class _Mark(str):
    """A default that is not a value."""


REQUIRED, ABSENT = _Mark('required'), _Mark('none')


def _is_int(value):
    return is_finite(value) and float(value).is_integer()  # `!!float 5e3` is how the official files write 5000


def _is_list(check):
    return lambda value: isinstance(value, list | tuple) and all(check(v) for v in value)


KINDS = {  # name in the table: (check, its words in a message)
    'int': (_is_int, 'a whole number'),
    'number': (is_finite, 'a number'),
    'bool': (lambda value: isinstance(value, bool), 'true or false'),
    'text': (lambda value: isinstance(value, str) and value.strip() != '', 'text'),
    'ints': (_is_list(_is_int), 'a list of whole numbers'),
    'numbers': (_is_list(is_finite), 'a list of numbers'),
    'texts': (_is_list(lambda value: isinstance(value, str)), 'a list of names'),
    'options': (lambda value: isinstance(value, dict), 'a block of options'),
    'auto': (lambda value: value == 'auto', 'auto'),
    'null': (lambda value: value is None, '~ (nothing)'),
    'any': (lambda value: True, 'anything'),
}

_LOADER = (
    Option(
        'gt_size',
        'int',
        ABSENT,
        '[1, inf)',
        'Training: side of the ground-truth patch in pixels; a multiple of `scale`. Required in the training set.',
    ),
    Option('use_hflip', 'bool', ABSENT, None, 'Training: flip at random. Default in the training set: true.'),
    Option(
        'use_rot', 'bool', ABSENT, None, 'Training: rotate by 90 degrees at random. Default in the training set: true.'
    ),
)
_PICTURES = (
    Option(
        'mean', 'numbers | null', ABSENT, None, 'Subtracted from the pictures, one value for each channel (0 to 1).'
    ),
    Option('std', 'numbers | null', ABSENT, None, 'Divides the pictures, one value for each channel (0 to 1).'),
    Option('color', 'text | null', ABSENT, ('y', 'rgb'), '`y`: train and test on the luma channel alone.'),
    Option('meta_info_file', 'text | null', ABSENT, None, 'Text file naming the pictures to use, one a line.'),
)
_PAIRED = (
    Option('dataroot_gt', 'text', REQUIRED, None, 'Folder or store of the ground truth (HR).'),
    Option('dataroot_lq', 'text', REQUIRED, None, 'Folder or store of the low-quality pictures (LR).'),
    Option(
        'filename_tmpl',
        'text',
        ABSENT,
        None,
        "Name of the LR picture from the name of its HR picture, without the extension: `'{}x4'` pairs 0001.png "
        "with 0001x4.png. Default: `'{}'`.",
    ),
    *_PICTURES,
    *_LOADER,
)
_LOSS = (
    Option('type', 'text', REQUIRED, None, 'Name in the loss registry, as `L1Loss`. The other keys are its arguments.'),
    Option('loss_weight', 'number', ABSENT, '[0, inf)', 'Factor of the loss.'),
    Option('reduction', 'text', ABSENT, ('mean', 'sum'), 'How the values of all pixels become one.'),
)

# section: its rows. `*` in a section stands for a name that the option file chooses.
SECTIONS = {
    '': (
        Option(
            'base', 'text', ABSENT, None, 'Option file that this one differs from; the path is relative to this file.'
        ),
        Option(
            'name',
            'text',
            REQUIRED,
            None,
            'Name of the run; its folder is experiments/NAME or results/NAME. A name that begins with `debug` '
            'makes a short run, as `--debug` does.',
        ),
        Option('model_type', 'text', REQUIRED, None, 'Name in the model registry: `ReparamSRModel`, `SRModel`, …'),
        Option('scale', 'int', ABSENT, '[1, inf)', 'Upscaling factor. Required with paired data.'),
        Option(
            'num_gpu',
            'int | auto',
            'auto',
            '[0, inf)',
            'GPUs of a run without a launcher; 0 is the CPU, and so is any number on a machine without GPUs.',
        ),
        Option('manual_seed', 'int | null', None, '[0, 4294900000]', 'Seed of the run. Default: drawn at random.'),
        Option('find_unused_parameters', 'bool', ABSENT, None, 'Passed to DistributedDataParallel.'),
        Option(
            'datasets',
            'options',
            REQUIRED,
            None,
            'Data sets: `train`, `val`, `val_2`, … for training, `test`, `test_1`, … for a test. One that is `~` '
            'is left out.',
        ),
        Option('network_g', 'options', REQUIRED, None, 'The network.'),
        Option('path', 'options', {}, None, 'Checkpoints to start from.'),
        Option('train', 'options', ABSENT, None, 'Training. Required when training.'),
        Option('val', 'options | null', ABSENT, None, 'Validation and test. Without it training does not validate.'),
        Option('logger', 'options', {}, None, 'What is logged and saved, and how often.'),
        Option('dist_params', 'options | null', ABSENT, None, 'Distributed training.'),
    ),
    'datasets.*': (
        Option('name', 'text', REQUIRED, None, 'Name of the data set in the log and in the results folder.'),
        Option(
            'type',
            'text',
            REQUIRED,
            None,
            'Name in the data set registry: `PairedCropDataset`, `PairedImageDataset`, `SingleImageDataset`, …',
        ),
        Option('io_backend', 'options', {'type': 'disk'}, None, 'How pictures are stored.'),
        Option('scale', 'int', ABSENT, '[1, inf)', 'Only where the file has no `scale` at its top.'),
        Option(
            'num_worker_per_gpu',
            'int',
            ABSENT,
            '[0, 1024]',
            'Worker processes that load data, for each rank or GPU. Required in the training set.',
        ),
        Option(
            'batch_size_per_gpu',
            'int',
            ABSENT,
            '[1, inf)',
            'Patches in a batch, for each rank or GPU. Required in the training set.',
        ),
        Option('dataset_enlarge_ratio', 'number', ABSENT, '(0, inf)', 'Times each picture counts in an epoch.'),
        Option(
            'prefetch_mode',
            'text | null',
            ABSENT,
            ('cpu', 'cuda'),
            '`cuda` copies the next batch ahead and needs `pin_memory: true`; it becomes `~` on a CPU.',
        ),
        Option('num_prefetch_queue', 'int', ABSENT, '[1, inf)', 'Batches ahead with `prefetch_mode: cpu`.'),
        Option('pin_memory', 'bool', ABSENT, None, 'Page-locked batches; false on a CPU.'),
        Option('persistent_workers', 'bool', ABSENT, None, 'Keep workers over epochs; needs at least one worker.'),
    ),
    'datasets.* (PairedCropDataset)': (
        *_PAIRED,
        Option(
            'crop_size',
            'int',
            ABSENT,
            '[1, inf)',
            'Raw stores: side of the sub-images, in HR pixels, out of which patches are drawn. Default: 480.',
        ),
        Option(
            'step', 'int', ABSENT, '[1, inf)', 'Raw stores: distance of the sub-images, in HR pixels. Default: 240.'
        ),
        Option(
            'thresh',
            'int',
            ABSENT,
            '[0, inf)',
            'Raw stores: a rest of a picture that is no wider than this gets no sub-image. Default: 0.',
        ),
        Option(
            'float32',
            'bool',
            ABSENT,
            None,
            'Pictures as floats in [0, 1], for models other than ReparamSRModel. Default: false.',
        ),
    ),
    'datasets.* (PairedImageDataset)': _PAIRED,
    'datasets.* (SingleImageDataset)': (
        Option('dataroot_lq', 'text', REQUIRED, None, 'Folder or LMDB of the pictures.'),
        *_PICTURES,
    ),
    'datasets.*.io_backend': (
        Option(
            'type',
            'text',
            'disk',
            ('disk', 'lmdb', 'memcached', 'raw'),
            'Folders of pictures, an LMDB, a memcached server, or (PairedCropDataset) a raw store.',
        ),
        Option('server_list_cfg', 'text', ABSENT, None, 'memcached: its server list.'),
        Option('client_cfg', 'text', ABSENT, None, 'memcached: its client configuration.'),
        Option('sys_path', 'text | null', ABSENT, None, 'memcached: where its Python module lies.'),
    ),
    'network_*': (
        Option(
            'type',
            'text',
            REQUIRED,
            None,
            'Name in the architecture registry: `LKDN`, `LKDN_S`, `MSRResNet`, … The other keys are its arguments.',
        ),
    ),
    'path': (
        Option(
            'pretrain_network_*',
            'text | null',
            ABSENT,
            None,
            'Checkpoint to start from, for the network of that name. Required in a test for `network_g`.',
        ),
        Option(
            'param_key_*',
            'text | null',
            ABSENT,
            None,
            'Which weights of the checkpoint: `params`, `params_ema`, or `~` for a file that holds nothing but '
            'weights. Default: `params`.',
        ),
        Option('strict_load_*', 'bool', ABSENT, None, 'Refuse a checkpoint that does not fit exactly. Default: true.'),
        Option('resume_state', 'text | null', ABSENT, None, 'Training state (`.state`) to go on from.'),
        Option(
            'resume_override',
            'bool',
            ABSENT,
            None,
            'On a resume, the optimizer settings, schedule, warm-up and seed of the option file replace those of '
            'the checkpoint. Default: false.',
        ),
        Option('ignore_resume_networks', 'texts | null', ABSENT, None, 'Networks that a resume does not load.'),
    ),
    'train': (
        Option('total_iter', 'int', REQUIRED, '[1, inf)', 'Iterations to train.'),
        Option(
            'warmup_iter',
            'int',
            -1,
            '[-1, inf)',
            'Iterations over which the learning rate rises; -1 for none. Less than `total_iter` and than the '
            'first milestone.',
        ),
        Option('ema_decay', 'number', 0, '[0, 1)', 'Decay of the moving average of the weights; 0 for none.'),
        Option('optim_g', 'options', REQUIRED, None, 'The optimizer.'),
        Option('scheduler', 'options', REQUIRED, None, 'The learning rate over time.'),
        Option('pixel_opt', 'options | null', ABSENT, None, 'Loss on pixels. At least one loss is needed.'),
        Option('perceptual_opt', 'options | null', ABSENT, None, 'Loss on VGG features.'),
    ),
    'train.optim_*': (
        Option('type', 'text', REQUIRED, None, '`Adan`, or a class of torch.optim. The other keys are its arguments.'),
        Option('lr', 'number', REQUIRED, '(0, inf)', 'Learning rate.'),
        Option('weight_decay', 'number', ABSENT, '[0, inf)', 'Weight decay.'),
        Option('betas', 'numbers', ABSENT, '[0, 1)', 'Decay of the running means: two for Adam, three for Adan.'),
    ),
    'train.scheduler': (
        Option(
            'type',
            'text',
            REQUIRED,
            None,
            '`MultiStepLR`, `MultiStepRestartLR` or `CosineAnnealingRestartLR`. The other keys are its arguments.',
        ),
        Option(
            'milestones', 'ints', ABSENT, '[1, inf)', 'MultiStep: iterations, in rising order, at which the rate falls.'
        ),
        Option('gamma', 'number', ABSENT, '(0, inf)', 'MultiStep: factor at a milestone.'),
        Option('restarts', 'ints', ABSENT, '[0, inf)', 'MultiStep: iterations at which the rate is set again.'),
        Option('restart_weights', 'numbers', ABSENT, '[0, inf)', 'Factor of the first rate at each restart.'),
        Option('periods', 'ints', ABSENT, '[1, inf)', 'Cosine: length of each period; together at least `total_iter`.'),
        Option('eta_min', 'number', ABSENT, '[0, inf)', 'Cosine: lowest rate.'),
    ),
    'train.*_opt': _LOSS,
    'val': (
        Option('val_freq', 'int', 5000, '[1, inf)', 'Training: iterations between validations.'),
        Option('save_img', 'bool', False, None, 'Save the pictures.'),
        Option('suffix', 'text | null', None, None, 'Test: end of the saved names. Default: the name of the run.'),
        Option('pbar', 'bool', ABSENT, None, 'Show a progress bar.'),
        Option('metrics', 'options | null', ABSENT, None, 'What to measure; each under a name of your choice.'),
    ),
    'val.metrics.*': (
        Option(
            'type',
            'text',
            REQUIRED,
            None,
            'Name in the metric registry: `calculate_psnr`, `calculate_ssim`, `calculate_niqe`, … The other keys '
            'are its arguments.',
        ),
        Option('better', 'text', ABSENT, ('higher', 'lower'), 'Which of two values is better. Default: higher.'),
        Option('crop_border', 'int', ABSENT, '[0, inf)', 'Pixels left out at each edge; usually `scale`.'),
        Option('test_y_channel', 'bool', ABSENT, None, 'Measure the luma channel alone, as papers do.'),
    ),
    'logger': (
        Option('print_freq', 'int', 100, '[1, inf)', 'Iterations between lines in the log.'),
        Option('save_checkpoint_freq', 'int', 5000, '[1, inf)', 'Iterations between checkpoints.'),
        Option(
            'keep_checkpoints',
            'int | null',
            ABSENT,
            '[1, inf)',
            'Keep this many of the newest checkpoints, and net_g_best. Default: all.',
        ),
        Option('use_tb_logger', 'bool', False, None, 'Write TensorBoard files to tb_logger/NAME.'),
        Option('wandb', 'options | null', ABSENT, None, 'Weights & Biases.'),
    ),
    'logger.wandb': (
        Option('project', 'text | null', None, None, 'Project; needs `use_tb_logger: true`. Default: not used.'),
        Option('resume_id', 'text | null', None, None, 'Run to go on with.'),
        Option('entity', 'text | null', ABSENT, None, 'Team or user.'),
    ),
    'dist_params': (
        Option('backend', 'text', ABSENT, ('nccl', 'gloo', 'mpi'), 'Default: nccl on GPUs. On a CPU always gloo.'),
        Option('port', 'int', ABSENT, '[1, 65535]', 'slurm: port of the first node. torchrun has its own.'),
        Option(
            'timeout', 'number', ABSENT, '(0, inf)', "Seconds after which a silent rank is given up. Default: torch's."
        ),
    ),
}

# Models whose `train` and top-level keys are all in the table; others may have keys of their own.
CLOSED_MODELS = ('SRModel', 'SwinIRModel', 'ReparamSRModel')

# Keys of the other data sets that BasicSR ships, beside those of `datasets.*`; only their names are checked.
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

"""``Run``: BasicSR's training loop with everything that it calls by name taken from one object."""

import contextlib
import logging
import os
import random
import signal
import sys
import time
import types
from argparse import Namespace
from copy import deepcopy
from types import TracebackType
from typing import Any

import basicsr.data
import basicsr.test
import basicsr.train
import basicsr.utils
from basicsr.models.base_model import BaseModel
from basicsr.utils.logger import init_wandb_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch.utils.data import DataLoader

from lkdn_basicsr import checkpoints
from lkdn_basicsr.cli import build_parser
from lkdn_basicsr.data.sampler import StreamSampler
from lkdn_basicsr.data.wrapped_dataset import name_errors
from lkdn_basicsr.errors import InputError, printable, system_error
from lkdn_basicsr.files import write_file
from lkdn_basicsr.locks import FolderLock
from lkdn_basicsr.options.option_file import RunOptions, dump_yaml, read_option_file
from lkdn_basicsr.options.parse import check_files, parse_options
from lkdn_basicsr.options.registries import registered
from lkdn_basicsr.training import resume, state
from lkdn_basicsr.training.distributed import Ranks
from lkdn_basicsr.training.dry_run import dry_run
from lkdn_basicsr.training.launch import read_launch, restarted_by_torchrun, warn_about_shared_store
from lkdn_basicsr.training.loaders import build_loader, build_train_loader
from lkdn_basicsr.training.logger import MessageLogger, prepare_handlers
from lkdn_basicsr.training.model import model_class
from lkdn_basicsr.training.prefetch import DevicePrefetcher, Prefetcher
from lkdn_basicsr.training.signals import StopRequest


class Finished(Exception):
    """The run has reached ``total_iter`` before."""


class Run:
    """One run of BasicSR's ``train_pipeline`` or ``test_pipeline``, as a context manager around it.

    The pipeline's code is BasicSR's. It is executed in a namespace in which the functions below marked with ``*`` are
    methods of this object, so BasicSR itself is not modified::

        opt, args = parse_options(root_path)        # * command line, option file, all checks; process group; seeds;
                                                    #   the newest intact checkpoint, compared with the options; dry run
        resume_state = load_resume_state(opt)       # * from here on, files are written
        make_exp_dirs(opt)                          # * only if the run does not continue in its folder
        copy_opt_file(...)                          # *
        logger = get_root_logger(...)               # * opens the log; logs what was found out before
        tb_logger = init_tb_loggers(opt)            # *
        create_train_val_dataloader(opt, logger)    # * StreamSampler: exactly total_iter iterations, resumable anywhere
        model = build_model(opt)                    # * the registered class combined with training.model.RunModel
        model.resume_training(resume_state)         #   RunModel: optimizers, schedulers, random states
        msg_logger = MessageLogger(...)             # *
        prefetcher = CPUPrefetcher(train_loader)    # *
        for epoch in ...:
            while train_data is not None:
                model.update_learning_rate(...)     #   first Run.begin_iteration: stops here after a signal
                model.feed_data(train_data)
                model.optimize_parameters(...)
                msg_logger(log_vars)                #   every print_freq iterations
                model.save(epoch, current_iter)     #   every save_checkpoint_freq: RunModel.save_network, then
                                                    #   RunModel.save_training_state -> Run.save_state
                model.validation(...)               #   every val_freq: RunHooks.validation -> training.validation;
                                                    #   Run.finish_validation decides which checkpoint is the best
                train_data = prefetcher.next()
        model.save(-1, -1)                          #   net_g_latest; Run.save_final_state
    """

    model: BaseModel
    sampler: StreamSampler

    def __init__(self) -> None:
        self.ranks = Ranks()
        self.stop = StopRequest()
        self.held = contextlib.ExitStack()  # the lock on the folder of the run, until after its last write
        self.opt = RunOptions()
        self.val_loaders: list[Any] = []  # their datasets have BasicSR's ``opt``
        self.tb_logger: Any = None
        self.message_logger: MessageLogger | None = None
        self.resume_state: dict[str, Any] | None = None
        self.continues = False  # in the folder of an earlier run, which is not moved aside
        self.iteration = 0  # the current one, or the last one done
        self._notes: list[str] = []  # for the log, which is not open yet
        self._comparable: dict[str, Any] = {}  # the options that training states record
        self._started = False
        self._epoch = 0
        self._saved: int | None = None  # iteration of the newest training state
        self._validated: int | None = 0  # iteration at which all datasets were validated last
        self._validating = 0  # number of datasets validated at this iteration so far

    def execute(self, pipeline: types.FunctionType, root_path: str) -> None:
        """Run the code of BasicSR's ``train_pipeline`` or ``test_pipeline`` with the helpers of this run."""
        helpers = {name: getattr(self, name) for name in HELPERS}
        types.FunctionType(pipeline.__code__, {**pipeline.__globals__, **helpers})(root_path)

    def __enter__(self) -> 'Run':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.stop.restore()
        if self.message_logger is not None:
            self.message_logger.close()
        if self.tb_logger is not None and error is not None:
            with contextlib.suppress(OSError):  # a full disk, which is reported below
                self.tb_logger.close()
            if isinstance(error, OSError) and error.errno and not error.filename:
                error.filename = self.tb_logger.log_dir  # nothing else writes without a name
        reason = system_error(error)
        if kind is Finished:
            logging.getLogger('basicsr').warning(str(error))
            self.ranks.leave()
            return True
        if reason is not None and self._started:
            reason = InputError(f'{reason}, then resume with --auto_resume: earlier checkpoints are intact')
        self.ranks.__exit__(kind, reason or error, traceback)
        if reason is not None:
            raise reason from None
        return None

    # ------------------------------------------------ start of the run ---------------------------------------------- #

    def parse_options(self, root_path: str, is_train: bool = True) -> tuple[RunOptions, Namespace]:
        """Parse and check everything, initialize the process group, set the seeds. ``--check`` ends the program here.

        Nothing on disk is changed, except that official weights are downloaded if they are missing.

        Raises:
            InputError: on the first error, in one line with file, line and key.
            Finished: the run is complete.
        """
        args = build_parser().parse_args()
        self.ranks = Ranks(read_launch(args.launcher))
        launch, port = self.ranks.launch, None
        args.launcher = launch.launcher  # torchrun is detected
        try:
            if is_train and not args.auto_resume:
                args.auto_resume = restarted_by_torchrun()
            option_file = parse_options(args, root_path, is_train)
            port = (option_file.opt.get('dist_params') or {}).get('port')
        finally:
            self.ranks.rendezvous(args.local_rank, port)  # also after an error, so that one rank reports it for all
        opt = self.opt = option_file.opt
        args.opt = option_file.path
        opt['dist'] = launch.launcher != 'none'
        opt['rank'], opt['world_size'] = launch.rank, launch.world_size
        self.ranks.init_process_group(opt['num_gpu'], opt.get('dist_params'))
        lock = FolderLock(opt['path']['log'], beside=True)
        if not args.check:
            self.ranks.on_first_rank(lock.check_free)
        smallest = self.ranks.on_first_rank(check_files, option_file, launch.world_size, is_train, args.check)
        self._set_seed(opt)
        opt.notes = [*option_file.notes, *warn_about_shared_store()]
        opt.effective = dump_yaml(opt)
        if is_train:
            self._find_checkpoint(opt)
        report = self.ranks.on_first_rank(dry_run, self, option_file, smallest)
        if args.check:
            if launch.rank == 0:
                if holder := lock.holder():
                    opt.notes.append(f'{lock.folder} is in use by {holder}; until it ends, a second run is refused.')
                verified = f'images verified: {", ".join(smallest) or "none"}'
                lines = [f'option file: {args.opt}', *opt.notes, *self._notes, *report, verified, 'No problems found.']
                print(*lines, sep='\n')
            raise SystemExit(0)
        self.ranks.on_first_rank(lock.acquire)
        self.held.callback(lock.release)
        return opt, args

    def _set_seed(self, opt: RunOptions) -> None:
        """Seed Python, numpy and torch; without ``manual_seed`` all ranks share one that rank 0 draws."""
        opt.seed_is_drawn = opt['manual_seed'] is None
        if opt.seed_is_drawn:
            opt['manual_seed'] = self.ranks.gather(random.randint(1, 10000))[0]
        basicsr.utils.set_random_seed(opt['manual_seed'] + opt['rank'])

    def _find_checkpoint(self, opt: RunOptions) -> None:
        """Find the training state to resume from, and make the options agree with it; the same on every rank.

        Raises:
            Finished: the run is complete.
            InputError: there is nothing usable to resume from.
        """
        checkpoint = self.ranks.on_first_rank(resume.find_checkpoint, opt)
        self._notes += checkpoint.notes
        found = self.resume_state = checkpoint.state
        if found is not None:
            self._notes += resume.apply_checkpoint(opt, checkpoint)
            if found.get('finished') and found['iter'] >= opt['train']['total_iter']:
                raise Finished(
                    f'{opt["name"]} is finished: its last checkpoint is of iteration {found["iter"]} of '
                    f'{opt["train"]["total_iter"]}. Nothing was done; raise train:total_iter to continue.'
                )
            self.iteration = self._saved = found['iter']
            self._validated = found.get('validated', found['iter'])
            self._epoch = found['epoch']
        self._comparable = resume.comparable(opt)

    def load_resume_state(self, opt: RunOptions) -> dict[str, Any] | None:
        """Return the training state to resume from, and clean the folder of the run that it continues.

        BasicSR's needs a GPU, fails with damaged and stray files, and searches below the current directory.
        """
        found = self.resume_state
        # A run that was killed before its first checkpoint starts again in its folder.
        self.continues = found is not None or (opt['auto_resume'] and os.path.isdir(opt['path']['models']))
        if self.continues and opt['rank'] == 0:
            for key in ('experiments_root', 'models', 'training_states', 'log', 'visualization'):
                os.makedirs(opt['path'][key], exist_ok=True)
            resume.remove_partial_files(opt['path']['models'], opt['path']['training_states'])
        return found

    def make_exp_dirs(self, opt: RunOptions) -> None:
        """BasicSR moves the folder aside also where ``--auto_resume`` finds no checkpoint in it yet."""
        if not self.continues:
            basicsr.utils.make_exp_dirs(opt)

    def mkdir_and_rename(self, path: str) -> None:
        """BasicSR moves the TensorBoard files aside, also with ``--auto_resume``."""
        if not self.continues:
            basicsr.utils.mkdir_and_rename(path)

    def copy_opt_file(self, opt_file: str, experiments_root: str) -> None:
        """Copy the option file, merged with its base; BasicSR writes it on all ranks at once, without the base."""
        if self.opt['rank'] > 0:
            return
        source = read_option_file(opt_file)
        head = f'# GENERATE TIME: {time.asctime()}\n# CMD:\n# {printable(" ".join(sys.argv))}\n'
        if len(source.files) == 1:
            with open(opt_file, encoding='utf-8') as file:
                text = file.read()
        else:
            head += f'# MERGED FROM: {printable(", which is based on ".join(source.files))}\n'
            text = dump_yaml(source.opt)
        write_file(os.path.join(experiments_root, os.path.basename(opt_file)), f'{head}\n{text}')

    def get_root_logger(self, logger_name: str, log_level: int, log_file: str) -> logging.Logger:
        """Open BasicSR's log, write the options in effect next to it, and log what was found out before."""
        logger = basicsr.utils.get_root_logger(logger_name, log_level, log_file)
        prepare_handlers(logger)
        if self.opt['rank'] == 0:
            path = f'{os.path.splitext(log_file)[0]}.yml'
            write_file(path, self.opt.effective)
            for note in self.opt.notes:
                logger.warning(note)
            logger.info(f'The options in effect are in {path}.')
            if self.opt.differences:
                lines = ''.join(f'\n\t{line}' for line in self.opt.differences)
                logger.info(f'Differences from the shipped option file:{lines}')
            for note in self._notes:
                logger.info(note)
        return logger

    def init_tb_loggers(self, opt: RunOptions) -> Any:
        """Return the SummaryWriter of the first rank; what was logged after the state that is resumed is removed.

        BasicSR writes nothing for a name that contains 'debug'; here only for one that begins with it.
        """
        if opt['rank'] > 0 or opt['name'].startswith('debug') or not opt['logger'].get('use_tb_logger'):
            return None
        if (opt['logger'].get('wandb') or {}).get('project') is not None:
            init_wandb_logger(opt)  # before TensorBoard, which it listens to
        folder = os.path.join(opt['root_path'], 'tb_logger', opt['name'])
        if not self.continues and 'debug' in opt['name'] and os.path.exists(folder):
            basicsr.utils.mkdir_and_rename(folder)  # BasicSR has done so for all other names
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        found = self.resume_state
        if found is None or found.get('tensorboard') is not None:  # None: the run did not log to TensorBoard then
            resume.rewind_events(folder, found['tensorboard'] if found else {})
        # purge_step makes an open TensorBoard forget what it has shown beyond the state.
        self.tb_logger = SummaryWriter(folder, purge_step=None if found is None else self.iteration + 1)
        return self.tb_logger

    def create_train_val_dataloader(
        self, opt: RunOptions, logger: logging.Logger
    ) -> tuple[DataLoader, StreamSampler, list[DataLoader], int, int]:
        """Build the loaders, with a sampler that makes BasicSR's loop run exactly ``total_iter`` iterations.

        BasicSR counts the incomplete last batch of an epoch, which is dropped, as an iteration, and stops too early.
        ``StreamSampler`` splits one stream of samples into epochs of complete batches, and starts anywhere in it.
        What a sample looks like depends only on its position in the stream.
        """
        total_iter, train_loader = int(opt['train']['total_iter']), None
        for phase, dataset_opt in opt['datasets'].items():
            dataset = name_errors(basicsr.data.build_dataset(dataset_opt))
            if dataset_opt['phase'] == 'train':
                train_loader, self.sampler = build_train_loader(opt, phase, dataset)
            else:
                logger.info(f'Number of val images/folders in {dataset_opt["name"]}: {len(dataset)}')
                self.val_loaders.append(build_loader(opt, dataset_opt, dataset))
        sampler = self.sampler
        assert train_loader is not None and sampler.num_epochs is not None
        if self.resume_state is not None:
            self.resume_state['epoch'] = sampler.start_epoch  # another batch size gives other epochs
        # BasicSR's loop is over range(start_epoch, total_epochs + 1).
        return train_loader, sampler, self.val_loaders, sampler.num_epochs - 1, total_iter

    def build_model(self, opt: RunOptions) -> BaseModel:
        """Build the model of ``model_type``, combined with the methods of :mod:`lkdn_basicsr.training.model`."""
        opt = deepcopy(opt)  # as BasicSR does: model classes change their options
        cls = model_class(registered(MODEL_REGISTRY)[opt['model_type']], self)
        self.model = cls(opt)
        logging.getLogger('basicsr').info(f'Model [{cls.__name__}] is created.')
        return self.model

    def MessageLogger(self, opt: RunOptions, start_iter: int, tb_logger: Any) -> MessageLogger:
        self.message_logger = MessageLogger(opt, start_iter, tb_logger)
        return self.message_logger

    def CPUPrefetcher(self, loader: DataLoader) -> Prefetcher:
        train = self.opt['datasets']['train']
        return Prefetcher(loader, train.get('num_prefetch_queue', 1) if train.get('prefetch_mode') == 'cpu' else 0)

    def CUDAPrefetcher(self, loader: DataLoader, opt: RunOptions) -> DevicePrefetcher:
        return DevicePrefetcher(loader, opt)

    # ------------------------------------------------ between iterations -------------------------------------------- #

    def begin_iteration(self, current_iter: int) -> None:
        """Begin an iteration, unless a signal asked to stop.

        Raises:
            SystemExit: with 128 and the number of the signal, after a checkpoint was saved.
        """
        if not self._started:
            self._started = True
            self.stop.install()
            self._validate_resumed()
        if self.message_logger is not None:
            self.message_logger.update_bar(self.iteration)
        number = self.stop.agreed if self.opt['dist'] else self.stop.received
        if number is not None:
            self._save_and_stop(number)
        self.iteration = current_iter

    def _validate_resumed(self) -> None:
        """Do the validation that a killed run saved a checkpoint for but did not complete."""
        val = self.opt.get('val') or {}
        due = bool(val) and self.iteration % val['val_freq'] == 0
        if due and self._saved == self.iteration and self._validated != self.iteration:
            for loader in self.val_loaders:
                self.model.validation(loader, self.iteration, self.tb_logger, val['save_img'])

    def _save_and_stop(self, number: int) -> None:
        if self._saved != self.iteration and self.iteration > 0:
            self.model.save(self.sampler.epoch, self.iteration)
        logging.getLogger('basicsr').info(
            f'Stopped by {signal.Signals(number).name} after iteration {self.iteration}; resume with --auto_resume.'
        )
        raise SystemExit(128 + number)

    # ------------------------------------------------ saving and validation ----------------------------------------- #

    def save_state(self, epoch: int, iteration: int, finished: bool = False) -> None:
        """Save the training state; called on all ranks, written by the first, after its networks."""
        self._saved, self._epoch = iteration, epoch
        events = None
        if self.tb_logger is not None:
            self.tb_logger.flush()  # the state records the bytes that are in the files
            events = resume.event_files(self.tb_logger.log_dir)
        contents = state.state_of(self.model, self.ranks, epoch, iteration) | {
            'validated': self._validated,
            'finished': finished,
            'options': self._comparable,
            'global_batch': resume.global_batch(self.opt),
            'tensorboard': events,
        }
        if self.opt['rank'] == 0:
            path, keep = self.opt['path'], self.opt['logger'].get('keep_checkpoints')
            checkpoints.save(contents, os.path.join(path['training_states'], f'{iteration}.state'))
            if keep:
                state.remove_old_checkpoints(path['models'], path['training_states'], keep, iteration)

    def save_final_state(self) -> None:
        """Save a checkpoint at the end of training: without one, BasicSR would train the last iterations again."""
        if self.message_logger is not None:
            self.message_logger.update_bar(self.iteration)
            self.message_logger.close()
        if self._saved != self.iteration:
            self.model.save(self.sampler.epoch, self.iteration)

    def is_validated(self, iteration: int) -> bool:
        """Return whether all datasets were validated at an iteration; BasicSR validates the last one twice."""
        return self._validated == iteration

    def finish_validation(self, iteration: int) -> None:
        """Save ``net_g_best`` if the first dataset has a new best value, and the results after the last dataset.

        The best checkpoint is decided by the first metric on the first validation dataset.
        """
        self._validating += 1
        if self._validating == 1 and self._is_best(iteration):
            self.model.save(self.sampler.epoch, 'best')
        if self._validating == len(self.val_loaders):
            self._validating, self._validated = 0, iteration
            if self._saved == iteration:
                self.save_state(self._epoch, iteration)

    def _is_best(self, iteration: int) -> bool:
        name = self.val_loaders[0].dataset.opt['name']
        record = getattr(self.model, 'best_metric_results', {}).get(name) or {}
        return any(best['iter'] == iteration for best in list(record.values())[:1])

    def complete(self) -> None:
        """Record in the last state that the run is complete."""
        if self._saved == self.iteration:
            self.save_state(self._epoch, self.iteration, finished=True)


# Names in BasicSR's pipelines that the methods of ``Run`` take the place of.
HELPERS = (
    'parse_options load_resume_state make_exp_dirs mkdir_and_rename copy_opt_file get_root_logger init_tb_loggers '
    'create_train_val_dataloader build_model MessageLogger CPUPrefetcher CUDAPrefetcher'
).split()


def train_pipeline(root_path: str) -> None:
    """Train as ``basicsr.train.train_pipeline`` does, from the options on the command line, with a ``Run``.

    Args:
        root_path: folder for ``experiments`` and ``tb_logger``.

    Raises:
        InputError: something in the options, data or checkpoints is invalid, or a file cannot be read or written.
        SystemExit: a signal asked to stop, and a checkpoint was saved.
    """
    run = Run()
    with run.held, run:
        run.execute(basicsr.train.train_pipeline, root_path)
        run.complete()


def test_pipeline(root_path: str) -> None:
    """Test as ``basicsr.test.test_pipeline`` does, to ``results`` in a folder, with the errors of a training."""
    run = Run()
    with run.held, run:
        run.execute(basicsr.test.test_pipeline, root_path)

"""What the replaced functions of BasicSR's training loop share while it runs: one ``Session`` a training.

BasicSR's loop calls, in this order: ``load_resume_state``, ``init_tb_loggers``, ``create_train_val_dataloader``,
``build_model``, ``resume_training``; then, for each iteration, ``update_learning_rate``, ``feed_data``,
``optimize_parameters``, ``save`` and ``validation`` where they are due, and ``next`` of the prefetcher; in the end
``save(-1, -1)`` and ``validation``. ``compat`` hangs the methods below on these.
"""

import contextlib
import errno
import logging
import os
import signal

from basicsr.utils.dist_util import get_dist_info

from lkdn_basicsr import checkpoints
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training import distributed as ranks
from lkdn_basicsr.training import resume
from lkdn_basicsr.training.signals import StopRequest

current = None  # the training that this process is in


class Finished(Exception):
    """There is nothing left to train."""


class Session:
    """One call of BasicSR's ``train_pipeline``, as a context manager around it.

    Attributes:
        iteration (int): the iteration that is being done, or was done last.
        model, sampler, val_loaders, tb_logger: what the loop works with, once it is made.
        stop (StopRequest): signals that have come.
        keeps_folder (bool): whether it goes on in the folder of an earlier one, which is not moved away.
    """

    def __init__(self):
        self.opt = self.model = self.sampler = self.tb_logger = None
        self.val_loaders = []
        self.notes = []
        self.resume_state = None
        self.keeps_folder = False
        self.iteration = 0
        self.stop = StopRequest()
        self._begun = False
        self._epoch = 0
        self._saved = None  # iteration of the newest training state
        self._validated = 0  # iteration of the last validation of all data sets
        self._validating = 0  # how many data sets have been validated at this iteration

    def __enter__(self):
        global current
        current = self
        return self

    def __exit__(self, kind, error, traceback):
        global current
        current = None
        self.stop.restore()
        if self.tb_logger and kind is not None:
            with contextlib.suppress(OSError):
                self.tb_logger.close()
        if kind is Finished:
            logging.getLogger('basicsr').warning(str(error))
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise InputError(
                f'{error.filename or "a file of this run"} could not be written ({error.strerror}): make '
                'room there, and go on with --auto_resume'
            ) from None

    # ------------------------------------------------ the beginning ------------------------------------------------ #

    def load_resume_state(self, opt):
        """Choose what to go on from, and make the options agree with it; the same on every rank.

        Raises:
            Finished: the run that would be resumed has come to its end.
            InputError: there is nothing usable to resume from.
        """
        self.opt = opt
        rank, _ = get_dist_info()
        try:
            chosen = resume.choose(opt) if rank == 0 else None
        except InputError as error:
            chosen = error
        chosen = ranks.gather(chosen)[0]
        if isinstance(chosen, InputError):
            raise chosen
        state, files, self.notes = chosen
        if state is not None:
            self.notes += resume.settle_changes(opt, state)
            if state.get('finished') and state['iter'] >= opt['train']['total_iter']:
                raise Finished(
                    f'{opt["name"]} is finished: its last checkpoint is of iteration {state["iter"]} of '
                    f'{opt["train"]["total_iter"]}. Nothing was done; raise train:total_iter to go on.'
                )
            resume.take_networks(opt, files)
            self.iteration = opt['resume_iter'] = state['iter']
            self._saved, self._validated = state['iter'], state.get('validated', state['iter'])
        self.resume_state = state
        self.options = resume.plain({key: value for key, value in opt.items() if key not in resume.VOLATILE})
        # A run that was killed before its first checkpoint begins again in its folder.
        self.keeps_folder = state is not None or (opt['auto_resume'] and os.path.isdir(opt['path']['models']))
        if rank == 0 and self.keeps_folder:
            self.make_folders()
        return state

    def make_folders(self):
        """Make the folders of the run where they are missing; what is in them stays."""
        path = self.opt['path']
        for key in ('experiments_root', 'models', 'training_states', 'log', 'visualization'):
            os.makedirs(path[key], exist_ok=True)
        resume.remove_leftovers(path['models'], path['training_states'])

    def open_events(self, folder):
        """TensorBoard's writer for the run, with what was logged after the state taken back.

        Args:
            folder (str): of the event files.

        Returns:
            SummaryWriter
        """
        from torch.utils.tensorboard import SummaryWriter

        state = self.resume_state or {}
        if not state or state.get('tensorboard') is not None:  # it is None where nothing was logged then
            resume.rewind_events(folder, state.get('tensorboard', {}))
        # What a TensorBoard that is open has already shown of it, purge_step makes it forget.
        self.tb_logger = SummaryWriter(folder, purge_step=self.iteration + 1 if state else None)
        return self.tb_logger

    def take_loaders(self, sampler, val_loaders, logger):
        """Note what the loop works with, and log what was found out before there was a log."""
        self.sampler, self.val_loaders = sampler, val_loaders
        for note in self.notes:
            logger.info(note)
        if self.resume_state is not None:
            self._epoch = self.resume_state['epoch']  # should the state be saved once more
            self.resume_state['epoch'] = sampler.start_epoch  # with another batch the loop is in another one

    # ------------------------------------------------ between iterations ------------------------------------------- #

    def at_boundary(self):
        """No iteration is under way: validate what a killed run did not come to, and stop if that was asked for.

        Raises:
            SystemExit: with 128 and the number of the signal, after a checkpoint was saved.
        """
        if not self._begun:
            self._begun = True
            self.stop.install()
            if self._validated != self.iteration and self._saved == self.iteration and self._is_due():
                for loader in self.val_loaders:
                    self.model.validation(loader, self.iteration, self.tb_logger, self.opt['val']['save_img'])
        number = self.stop.agreed if self.opt['dist'] else self.stop.received
        if number is None:
            return
        logger = logging.getLogger('basicsr')
        if self._saved != self.iteration and self.iteration > 0:
            self.model.save(self.sampler.epoch, self.iteration)
        logger.info(
            f'Stopped by {signal.Signals(number).name} after iteration {self.iteration}; go on with --auto_resume.'
        )
        raise SystemExit(128 + number)

    def _is_due(self):
        val = self.opt.get('val')
        return val is not None and self.iteration % val['val_freq'] == 0

    # ------------------------------------------------ saving and validating ---------------------------------------- #

    def save_state(self, model, epoch, iteration, finished=False):
        """Save the training state; called on all ranks, written by the first, after its networks."""
        self._saved, self._epoch = iteration, epoch
        if self.tb_logger:
            self.tb_logger.flush()  # the state counts the bytes that are in the files
        path = self.opt['path']
        state = resume.contents(
            model,
            epoch,
            iteration,
            validated=self._validated,
            finished=finished,
            options=self.options,
            tensorboard=resume.event_files(self.tb_logger.log_dir) if self.tb_logger else None,
        )
        if get_dist_info()[0] == 0:
            checkpoints.save(state, os.path.join(path['training_states'], f'{iteration}.state'))
            if self.opt['logger'].get('keep_checkpoints'):
                prune(path['models'], path['training_states'], self.opt['logger']['keep_checkpoints'], iteration)

    def save_last(self, model):
        """At the end of training: BasicSR saves no training state then, without which a finished run is not known."""
        if self._saved != self.iteration:
            model.save(self.sampler.epoch, self.iteration)

    def validated(self, model, iteration):
        """A data set has been validated: keep the best, and with the last set, put the results into the state."""
        self._validating += 1
        if self._validating == 1 and self._is_best(model, iteration):
            model.save(self.sampler.epoch, 'best')
        if self._validating == len(self.val_loaders):
            self._validating, self._validated = 0, iteration
            if self._saved == iteration:
                self.save_state(model, self._epoch, iteration)

    def is_validated(self, iteration):
        """Whether all data sets were validated at this iteration: BasicSR does it once more at the end."""
        return self._validated == iteration

    def _is_best(self, model, iteration):
        name = self.val_loaders[0].dataset.opt['name']
        record = getattr(model, 'best_metric_results', {}).get(name)
        return bool(record) and next(iter(record.values()))['iter'] == iteration

    def complete(self):
        """The pipeline has come to its end: the last state says so."""
        if self._saved == self.iteration:
            self.save_state(self.model, self._epoch, self.iteration, finished=True)


def prune(models, states, keep, iteration):
    """Remove the checkpoints of a run but for its last ones; ``net_g_best`` and ``net_g_latest`` stay.

    Args:
        models, states (str): the folders.
        keep (int): how many training states, with their networks, stay.
        iteration (int): that of the newest one. What a run that went on from an older one has left lies beyond; it is
            neither counted nor removed.
    """
    first = [found for found, _ in resume.list_training_states(states) if found <= iteration][:keep][-1]
    for folder in (states, models):  # a training state without its networks would be found and passed over
        for name in os.listdir(folder):
            found = resume.iteration_of(name)
            if found is not None and found < first:
                os.remove(os.path.join(folder, name))

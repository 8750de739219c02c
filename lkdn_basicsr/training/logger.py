"""What a person sees of a run: BasicSR's lines in the log, a progress bar on a terminal, and TensorBoard."""

import contextlib
import datetime
import os
import sys
import time

from basicsr.utils.dist_util import get_dist_info, master_only
from basicsr.utils.logger import MessageLogger, init_wandb_logger
from basicsr.utils.misc import mkdir_and_rename
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from lkdn_basicsr.training import session


class ProgressLogger(MessageLogger):
    """BasicSR's MessageLogger with a right ETA, more in TensorBoard, and a progress bar if stderr is a terminal.

    Args:
        opt (dict): BasicSR's options.
        start_iter (int): Iterations done before, on a resume. Default: 0.
        tb_logger (SummaryWriter | None): On the first rank, if there is one. Default: None.
    """

    # BasicSR's loop does not show its logger every iteration; what deals out the batches finds it here.
    current = None

    def __init__(self, opt, start_iter=0, tb_logger=None):
        super().__init__(opt, start_iter, tb_logger)
        self.taken = start_iter  # batches taken out of the loader since the beginning of the run
        self.mark = None  # (iteration, time) from which speed is measured: the first line, so without the start-up
        self.bar, self._opened = None, contextlib.ExitStack()
        if get_dist_info()[0] == 0 and sys.stderr.isatty():
            # Some terminals state no size; tqdm then shows nothing.
            sized = os.get_terminal_size(sys.stderr.fileno()).columns > 0
            size = {'dynamic_ncols': True} if sized else {'ncols': 100, 'nrows': 20}
            self.bar = tqdm(total=self.max_iters, initial=start_iter, desc=self.exp_name, smoothing=0.02, **size)
            self._opened.callback(self.bar.close)
            self._opened.enter_context(logging_redirect_tqdm([self.logger]))  # lines above the bar, not through it
        ProgressLogger.current = self

    def batch_taken(self, is_last):
        """Called each time the loop asks for a batch, when the iterations of all earlier ones are done.

        Args:
            is_last (bool): There was none left in the epoch.
        """
        if self.bar is not None:
            self.bar.update(self.taken - self.bar.n)
            if is_last and self.taken >= self.max_iters:
                self.close()
        self.taken += not is_last

    @classmethod
    def close_current(cls):
        """Closes the bar of a run that ends early, so that what is printed next has a line of its own."""
        if cls.current is not None:
            cls.current.close()

    def close(self):
        self._opened.close()

    @master_only
    def __call__(self, log_vars):
        """Log one line, and the same to TensorBoard.

        Args:
            log_vars (dict): ``epoch``, ``iter``, ``lrs`` (list), ``time`` and ``data_time`` (seconds an iteration, and
                those of them spent waiting for data), and the losses.
        """
        epoch, iteration, lrs, seconds, waiting = (
            log_vars.pop(key) for key in ('epoch', 'iter', 'lrs', 'time', 'data_time')
        )
        eta = datetime.timedelta(seconds=int(self._seconds_left(iteration, seconds)))
        line = (
            f'[{self.exp_name[:5]}..][epoch:{epoch:3d}, iter:{iteration:8,d}, '
            f'lr:({"".join(f"{lr:.3e}," for lr in lrs)})] '
            f'[eta: {eta}, time (data): {seconds:.3f} ({waiting:.3f})] '
        )
        self.logger.info(line + ''.join(f'{key}: {value:.4e} ' for key, value in log_vars.items()))

        share = waiting / seconds if seconds else 0.0
        if self.bar is not None:
            loss = next(iter(log_vars.values()), float('nan'))
            self.bar.set_postfix_str(f'loss={loss:.4f}, lr={lrs[0]:.1e}, waiting for data {share:.0%}')
        if self.tb_logger is not None:
            scalars = {f'losses/{key}' if key.startswith('l_') else key: value for key, value in log_vars.items()}
            scalars['learning_rate'] = lrs[0]
            scalars['speed/iterations_per_second'] = 1 / seconds if seconds else 0.0
            scalars['speed/data_wait_share'] = share
            for key, value in scalars.items():
                self.tb_logger.add_scalar(key, value, iteration)

    def _seconds_left(self, iteration, seconds):
        """BasicSR counts a resumed run from 0, and one iteration too few; here validations count in, start-up not."""
        now = time.monotonic()
        if self.mark is None:
            self.mark = (iteration, now)
        else:
            seconds = (now - self.mark[1]) / (iteration - self.mark[0])
        return seconds * (self.max_iters - iteration)


@master_only
def init_tb_loggers(opt):
    """BasicSR writes nothing to TensorBoard for a name with 'debug' anywhere in it; here only where it begins so.

    Args:
        opt (dict): BasicSR's options.

    Returns:
        SummaryWriter | None: On the first rank; what was logged beyond the one that a run resumes from is taken back.
    """
    if opt['name'].startswith('debug') or not opt['logger'].get('use_tb_logger'):
        return None
    if (opt['logger'].get('wandb') or {}).get('project') is not None:
        init_wandb_logger(opt)  # before TensorBoard, which it listens to
    folder = os.path.join(opt['root_path'], 'tb_logger', opt['name'])
    if not session.current.keeps_folder and 'debug' in opt['name'] and os.path.exists(folder):
        mkdir_and_rename(folder)  # BasicSR has done so for all other names
    return session.current.open_events(folder)

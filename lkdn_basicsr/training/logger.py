"""BasicSR's MessageLogger with a correct ETA, more scalars in TensorBoard, and a progress bar on a terminal."""

import contextlib
import datetime
import functools
import io
import logging
import os
import sys
import time
from typing import Any, cast

import basicsr.utils.logger
from basicsr.utils.dist_util import get_dist_info, master_only
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


def prepare_handlers(logger: logging.Logger) -> None:
    """Let the files of a log contain any text, and let a disk that is full end the run, instead of a traceback."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            cast(io.TextIOWrapper, handler.stream).reconfigure(encoding='utf-8', errors='backslashreplace')
            handler.handleError = functools.partial(_raise_error, handler)  # type: ignore[method-assign]


def _raise_error(handler: logging.FileHandler, _record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]  # which the handler has caught
    assert error is not None
    if isinstance(error, OSError):
        error.filename = handler.baseFilename
        with contextlib.suppress(OSError):
            handler.close()  # what is logged from here on is not written
    raise error


class MessageLogger(basicsr.utils.logger.MessageLogger):
    """Logs a line every ``print_freq`` iterations.

    Args:
        start_iter: iterations done before a resume.
        tb_logger: SummaryWriter of the first rank, if there is one.
    """

    def __init__(self, opt: dict[str, Any], start_iter: int = 0, tb_logger: Any = None) -> None:
        super().__init__(opt, start_iter, tb_logger)
        # Iteration and time from which the speed is measured: those of the first line, so start-up does not count.
        self._mark: tuple[int, float] | None = None
        self._bar: tqdm | None = None
        self._open = contextlib.ExitStack()
        if get_dist_info()[0] == 0 and sys.stderr.isatty():
            # Some terminals report no size; tqdm would show nothing there.
            has_size = os.get_terminal_size(sys.stderr.fileno()).columns > 0
            size = {'dynamic_ncols': True} if has_size else {'ncols': 100, 'nrows': 20}
            self._bar = tqdm(total=self.max_iters, initial=start_iter, desc=self.exp_name, smoothing=0.02, **size)
            self._open.callback(self._bar.close)
            self._open.enter_context(logging_redirect_tqdm([self.logger]))  # log lines appear above the bar

    def update_bar(self, iteration: int) -> None:
        """Show that an iteration is done."""
        if self._bar is not None:
            self._bar.update(iteration - self._bar.n)

    def close(self) -> None:
        """Close the progress bar, so that later output starts on a line of its own."""
        self._open.close()

    @master_only
    def __call__(self, log_vars: dict[str, Any]) -> None:
        """Log one line, and the same to TensorBoard.

        Args:
            log_vars: ``epoch``, ``iter``, ``lrs`` (list), ``time`` and ``data_time`` (seconds per iteration, and the
                part of them spent waiting for data), and the losses.
        """
        epoch, iteration, lrs = (log_vars.pop(key) for key in ('epoch', 'iter', 'lrs'))
        seconds, waiting = log_vars.pop('time'), log_vars.pop('data_time')
        eta = datetime.timedelta(seconds=int(self._seconds_left(iteration, seconds)))
        rates = ''.join(f'{lr:.3e},' for lr in lrs)
        line = f'[{self.exp_name[:5]}..][epoch:{epoch:3d}, iter:{iteration:8,d}, lr:({rates})] '
        line += f'[eta: {eta}, time (data): {seconds:.3f} ({waiting:.3f})] '
        self.logger.info(line + ''.join(f'{key}: {value:.4e} ' for key, value in log_vars.items()))

        wait_share = waiting / seconds if seconds else 0.0
        if self._bar is not None:
            loss = next(iter(log_vars.values()), float('nan'))
            self._bar.set_postfix_str(f'loss={loss:.4f}, lr={lrs[0]:.1e}, waiting for data {wait_share:.0%}')
        if self.tb_logger is not None:
            scalars = {f'losses/{key}' if key.startswith('l_') else key: value for key, value in log_vars.items()}
            scalars['learning_rate'] = lrs[0]
            scalars['speed/iterations_per_second'] = 1 / seconds if seconds else 0.0
            scalars['speed/data_wait_share'] = wait_share
            for key, value in scalars.items():
                self.tb_logger.add_scalar(key, value, iteration)

    def _seconds_left(self, iteration: int, seconds: float) -> float:
        """BasicSR counts a resumed run from 0, and one iteration too few; here validation counts, start-up does not."""
        now = time.monotonic()
        if self._mark is None:
            self._mark = (iteration, now)
        else:
            seconds = (now - self._mark[1]) / (iteration - self._mark[0])
        return seconds * (self.max_iters - iteration)

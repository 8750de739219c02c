"""BasicSR's prefetchers without their faults: what is to be done between iterations is done when they are asked."""

import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher

from lkdn_basicsr.training import session
from lkdn_basicsr.training.logger import ProgressLogger


def _asked():
    if session.current is not None:
        session.current.at_boundary()


def _told(batch):
    if session.current is not None and batch is not None:
        session.current.iteration += 1
    if ProgressLogger.current is not None:
        ProgressLogger.current.batch_taken(is_last=batch is None)
    return batch


class Prefetcher:
    """Takes batches out of a loader, as BasicSR's CPUPrefetcher, which starts the loader's workers twice.

    ``reset()`` begins an epoch; ``next()`` gives a batch, or None at its end.
    """

    def __init__(self, loader):
        self.loader = loader
        self.batches = iter(())

    def reset(self):
        self.batches = iter(self.loader)

    def next(self):
        _asked()
        return _told(next(self.batches, None))


class DevicePrefetcher(CUDAPrefetcher):
    """BasicSR's CUDAPrefetcher, which starts the loader's workers, and copies the first batch, twice."""

    def __init__(self, loader, opt):
        self.ori_loader = loader
        self.opt = opt
        self.stream = torch.cuda.Stream()
        self.device = torch.device('cuda')

    def next(self):
        _asked()
        batch = super().next()
        for value in (batch or {}).values():
            if torch.is_tensor(value):
                # The memory belongs to the copying stream, which must not reuse it while the training stream reads.
                value.record_stream(torch.cuda.current_stream())
        return _told(batch)


class _Failure:
    def __init__(self, error):
        self.error = error


def run_generator(thread):
    """``PrefetchGenerator.run``; BasicSR's lets an exception end the thread, and the reader wait for ever."""
    try:
        for item in thread.generator:
            thread.queue.put(item)
    except Exception as error:
        thread.queue.put(_Failure(error))
    else:
        thread.queue.put(None)


def next_of_generator(thread):
    """``PrefetchGenerator.__next__``: the next batch, or what went wrong in reading it."""
    item = thread.queue.get()
    if isinstance(item, _Failure):
        raise item.error
    if item is None:
        raise StopIteration
    return item

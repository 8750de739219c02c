"""BasicSR's prefetchers without their defects: ``reset()`` starts an epoch, ``next()`` returns a batch or None."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import torch
from basicsr.data.prefetch_dataloader import CUDAPrefetcher
from torch.utils.data import DataLoader


class Prefetcher:
    """Takes batches from a loader. BasicSR's CPUPrefetcher starts the workers of the loader twice.

    Args:
        ahead: batches that a thread loads in advance (``prefetch_mode: cpu``); 0 for no thread.
    """

    def __init__(self, loader: DataLoader, ahead: int = 0) -> None:
        self.loader, self.ahead = loader, ahead
        self.batches: Iterator[Any] = iter(())

    def reset(self) -> None:
        self.batches = _load_ahead(self.loader, self.ahead) if self.ahead else iter(self.loader)

    def next(self) -> dict[str, Any] | None:
        return next(self.batches, None)


def _load_ahead(loader: DataLoader, ahead: int) -> Iterator[Any]:
    """Yield the batches of a thread. When BasicSR's thread ends with an error, its reader waits forever."""
    batches: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)

    def load() -> None:
        try:
            for batch in loader:
                batches.put(('batch', batch))
            batches.put(('end', None))
        except Exception as error:
            batches.put(('error', error))

    threading.Thread(target=load, daemon=True).start()
    while True:
        kind, value = batches.get()
        if kind == 'error':
            raise value
        if kind == 'end':
            return
        yield value


class DevicePrefetcher(CUDAPrefetcher):
    """BasicSR's CUDAPrefetcher, which starts the workers of the loader, and copies the first batch, twice."""

    def __init__(self, loader: DataLoader, opt: dict[str, Any]) -> None:
        self.ori_loader, self.opt = loader, opt
        self.stream, self.device = torch.cuda.Stream(), torch.device('cuda')

    def next(self) -> dict[str, Any] | None:
        batch = super().next()
        for value in (batch or {}).values():
            if torch.is_tensor(value):
                # The memory belongs to the copying stream, which must not reuse it while the training stream reads.
                value.record_stream(torch.cuda.current_stream())
        return batch

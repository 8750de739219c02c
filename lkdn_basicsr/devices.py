"""GPUs: whether they can be used, exact arithmetic for scores, and running out of memory."""

import contextlib
import os
import sys
from collections.abc import Iterator

import torch

from lkdn_basicsr.errors import InputError, one_line

# Of allocators that raise a plain RuntimeError: PyTorch's CPU allocator, cuDNN and cuBLAS.
_OUT_OF_MEMORY = [
    "can't allocate memory",
    'not enough memory',
    'CUDNN_STATUS_ALLOC_FAILED',
    'CUBLAS_STATUS_ALLOC_FAILED',
]
_OUT_OF_MEMORY += [f'CUDNN_STATUS_INTERNAL_ERROR_{kind}_ALLOCATION_FAILED' for kind in ('HOST', 'DEVICE')]


def check_cuda(remedy: str, device: str = 'cuda') -> None:
    """Run a kernel of one element on a GPU, whatever the number of GPUs that the driver reports.

    Args:
        remedy: how to run on the CPU instead, for the message.
        device: ``cuda:INDEX``; ``cuda`` is the current one.

    Raises:
        InputError: the driver is older than this build of PyTorch, the build has no kernels for the GPU, or the GPU is
            used exclusively by another process.
    """
    try:
        torch.ones(1, device=device).add_(1).item()
    except Exception as error:  # torch raises RuntimeError, AssertionError and AcceleratorError
        reason = one_line(error).partition(' CUDA kernel errors might be')[0]
        fix = f'install a driver and build for it, or {remedy}'
        raise InputError(f'PyTorch {torch.__version__} cannot use the GPU ({reason}): {fix}') from None


def total_memory(device: torch.device) -> int:
    """Return the memory of a device in bytes; of the machine, or of the part of it that a container may use."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[1]
    if not hasattr(os, 'sysconf'):  # Windows
        return sys.maxsize
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    with contextlib.suppress(OSError, ValueError), open('/sys/fs/cgroup/memory.max', encoding='ascii') as file:
        memory = min(memory, int(file.read()))  # 'max' is no limit
    return memory


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that the memory of a GPU or of the machine does not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


@contextlib.contextmanager
def report_out_of_memory(task: str, remedy: str) -> Iterator[None]:
    """Raise InputError if memory does not suffice for ``task``; both texts are for the message."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        # DataParallel puts the traceback of a replica in front of the message.
        reason = one_line(str(error).rpartition('OutOfMemoryError: ')[2])
        raise InputError(f'memory does not suffice for {task} ({reason or "MemoryError"}): {remedy}') from None


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Compute in float32 without TF32 and without cuDNN's autotuning, so that scores do not depend on the GPU.

    BasicSR switches autotuning on for training; for images of many sizes it would tune each size again.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    previous = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with cudnn.flags(cudnn.enabled, benchmark=False, deterministic=cudnn.deterministic, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = previous

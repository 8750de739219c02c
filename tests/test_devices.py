"""Checks of GPUs; most of them run without one."""

import pytest
import torch

from lkdn_basicsr import devices
from lkdn_basicsr.errors import InputError


@pytest.mark.parametrize(
    'error, words',
    [
        (RuntimeError('The NVIDIA driver on your system is too old\n(found version 11040).'), 'driver on your system'),
        (torch.AcceleratorError('CUDA error: no kernel image is available\nCUDA kernel errors might be'), 'no kernel'),
        (AssertionError('Torch not compiled with CUDA enabled'), 'not compiled with CUDA'),
    ],
)
def test_gpu_that_runs_no_kernel_is_refused_in_one_line(monkeypatch, error, words):
    def ones(*size, device):
        tried.append(device)
        raise error

    tried = []
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)  # as NVML reports GPUs on which nothing runs
    monkeypatch.setattr(torch, 'ones', ones)
    with pytest.raises(InputError) as caught:
        devices.check_cuda('set num_gpu: 0')
    message = str(caught.value)
    assert words in message and message.endswith('or set num_gpu: 0') and '\n' not in message
    assert tried == ['cuda'] and 'might be' not in message


@pytest.mark.gpu
def test_gpu_that_runs_kernels_is_accepted():
    devices.check_cuda('set num_gpu: 0')
    devices.check_cuda('set num_gpu: 0', f'cuda:{torch.cuda.device_count() - 1}')


@pytest.mark.parametrize(
    'error, expected',
    [
        (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'), True),
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED'), True),
        (RuntimeError('CUDA error: an illegal memory access was encountered'), False),
        (ValueError('not enough memory'), False),
    ],
)
def test_out_of_memory(error, expected):
    assert devices.is_out_of_memory(error) is expected


def test_exact_arithmetic_is_restored(tf32):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    with cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        with pytest.raises(KeyError), devices.exact_arithmetic():
            assert not (cudnn.benchmark or cudnn.allow_tf32 or matmul.allow_tf32)
            raise KeyError
        assert cudnn.benchmark and cudnn.allow_tf32 and matmul.allow_tf32

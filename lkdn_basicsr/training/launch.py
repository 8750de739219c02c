"""How this process was launched: which rank of how many, on which device."""

import os
import random
from collections import namedtuple

import torch
from basicsr.utils import set_random_seed

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training import distributed as ranks

Launch = namedtuple('Launch', 'launcher rank world_size')


def read_launch(launcher):
    """Reads the ranks from the environment, before any process group exists.

    Args:
        launcher (str): ``none``, ``pytorch`` or ``slurm``. With ``none``, torchrun is noticed by what it sets.

    Returns:
        Launch: ``launcher`` in effect, ``rank`` and ``world_size``.

    Raises:
        InputError: The launcher did not start this process.
    """
    names = {
        'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
        'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    }
    if launcher == 'none':
        if not all(name in os.environ for name in names['pytorch']):
            return Launch('none', 0, 1)
        launcher = 'pytorch'
    # LOCAL_RANK came after RANK; a launcher without it gives one rank a node.
    rank, world_size, _ = names[launcher]
    try:
        return Launch(launcher, int(os.environ[rank]), int(os.environ[world_size]))
    except (KeyError, ValueError) as err:
        starter = 'torchrun --nproc_per_node=N -m lkdn_basicsr.train' if launcher == 'pytorch' else 'srun'
        raise InputError(
            f'--launcher {launcher} needs {rank} and {world_size} in the environment; start with {starter}, '
            'or leave --launcher out'
        ) from err


def meet_ranks(launch, local_rank=0, port=None):
    """Finds the other ranks, so that what is wrong is said once.

    Args:
        launch (Launch): Of ``pytorch`` or ``slurm``; nothing is done for ``none``.
        local_rank (int): ``--local-rank``, for launchers that do not set LOCAL_RANK. Default: 0.
        port (int | None): slurm: port of the first node. Default: None, MASTER_PORT or 29500.

    Raises:
        InputError: The environment does not say where the first rank is.
    """
    if launch.launcher == 'none':
        return
    if launch.launcher == 'slurm':
        _read_slurm(port)
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    for name in ('MASTER_ADDR', 'MASTER_PORT'):
        if name not in os.environ:
            raise InputError(
                f'--launcher {launch.launcher} needs {name} in the environment; start with torchrun or srun'
            )
    ranks.meet(launch.rank, launch.world_size)


def init_distributed(launch, num_gpu, dist_params=None):
    """Joins the process group and takes this rank's device.

    Args:
        launch (Launch): After :func:`meet_ranks`.
        num_gpu (int): 0 for a run on the CPU.
        dist_params (dict | None): ``backend``, and ``timeout`` in seconds. Without GPUs the backend is gloo.

    Raises:
        InputError: There are more ranks than GPUs on this machine.
    """
    dist_params = dist_params or {}
    backend = dist_params.get('backend', 'nccl') if num_gpu else 'gloo'
    if num_gpu:
        present, local_rank = torch.cuda.device_count(), int(os.environ['LOCAL_RANK'])
        if backend == 'nccl' and local_rank >= present:
            raise InputError(
                f'LOCAL_RANK is {local_rank}, but this machine has {present} GPUs; start no more ranks '
                'than that on it, or set num_gpu: 0'
            )
        torch.cuda.set_device(local_rank % present)
    ranks.join(launch.rank, launch.world_size, backend, dist_params.get('timeout'))


def _read_slurm(port):
    """Sets what torch reads from what slurm sets, as BasicSR does, but with slurm's own local rank."""
    nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST', '')
    if 'MASTER_ADDR' not in os.environ:
        import subprocess

        try:
            found = subprocess.run(['scontrol', 'show', 'hostnames', nodes], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as err:
            raise InputError(
                f'scontrol cannot name the first of the nodes {nodes!r}; set MASTER_ADDR yourself'
            ) from err
        os.environ['MASTER_ADDR'] = found.stdout.split()[0]
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ.setdefault('MASTER_PORT', '29500')
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')


def seed_everything(seed, rank):
    """Seeds Python, numpy and torch with ``seed + rank``; returns the seed, drawn once for all ranks when None."""
    if seed is None:
        # Each rank draws its own; BasicSR leaves it at that, and then no two ranks shuffle alike.
        seed = ranks.gather(random.randint(1, 10000))[0]
    set_random_seed(seed + rank)
    return seed

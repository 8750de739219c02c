"""Who launched this process: torchrun, slurm, or a user without a launcher."""

import ctypes
import os
import signal
import subprocess
import sys
from typing import NamedTuple

from lkdn_basicsr.errors import InputError

ENVIRONMENT = {'pytorch': ('RANK', 'WORLD_SIZE'), 'slurm': ('SLURM_PROCID', 'SLURM_NTASKS')}


class Launch(NamedTuple):
    """How this process was launched: ``launcher`` is ``none``, ``pytorch`` or ``slurm``."""

    launcher: str = 'none'
    rank: int = 0
    world_size: int = 1


def read_launch(launcher: str = 'none') -> Launch:
    """Read rank and world size from the environment, or raise InputError if the launcher did not start this process.

    With the ``--launcher`` ``none``, torchrun is detected by the variables that it sets.
    """
    if launcher == 'none':
        if not all(name in os.environ for name in (*ENVIRONMENT['pytorch'], 'LOCAL_RANK')):
            return Launch()
        launcher = 'pytorch'
    # LOCAL_RANK is optional: launchers older than torchrun pass --local_rank.
    rank, world_size = ENVIRONMENT[launcher]
    try:
        return Launch(launcher, int(os.environ[rank]), int(os.environ[world_size]))
    except (KeyError, ValueError) as error:
        command = 'torchrun --nproc_per_node=N -m lkdn_basicsr.train' if launcher == 'pytorch' else 'srun'
        raise InputError(
            f'--launcher {launcher} needs {rank} and {world_size} in the environment; start with {command}, '
            'or leave --launcher out'
        ) from error


def restarted_by_torchrun() -> bool:
    """Return whether torchrun has started the ranks again after a failure, so that the run must resume.

    On several nodes torchrun does not count the restarts before a node was replaced: that is an InputError.
    """
    if int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0)) == 0:
        return False
    if int(os.environ.get('GROUP_WORLD_SIZE', 1)) > 1:
        raise InputError(
            'torchrun --max-restarts on several nodes needs --auto_resume, or a replaced node would start from scratch'
        )
    return int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0


def warn_about_shared_store() -> list[str]:
    """Return a line for the log where torchrun cannot replace a node (a defect of torchrun, seen in torch 2.15)."""
    several_nodes = int(os.environ.get('GROUP_WORLD_SIZE', 1)) > 1
    restarts = int(os.environ.get('TORCHELASTIC_MAX_RESTARTS', 0)) > 0
    if not several_nodes or not restarts or os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return []
    name = 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE'
    return [f'A node that fails can be replaced only if torchrun is started with {name}=1 in the environment.']


def end_with_parent() -> None:
    """Let this process receive SIGTERM when its parent ends, for whatever reason; only Linux can do this."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def set_slurm_environment(port: int | None) -> None:
    """Set the variables that torch reads from those that slurm sets, as BasicSR does, but with slurm's local rank."""
    nodes = os.environ.get('SLURM_STEP_NODELIST') or os.environ.get('SLURM_NODELIST', '')
    if 'MASTER_ADDR' not in os.environ:
        try:
            command = ['scontrol', 'show', 'hostnames', nodes]
            hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f'scontrol cannot name the first of the nodes {nodes!r}; set MASTER_ADDR') from error
        os.environ['MASTER_ADDR'] = hosts.split()[0]
    os.environ['MASTER_PORT'] = str(port or os.environ.get('MASTER_PORT', '29500'))
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')
    os.environ.update(RANK=os.environ['SLURM_PROCID'], WORLD_SIZE=os.environ['SLURM_NTASKS'])

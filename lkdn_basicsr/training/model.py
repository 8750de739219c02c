"""Methods of BasicSR's model classes that a run replaces: saving, resuming, losses over ranks, validation.

``model_class`` combines them with the registered class of ``model_type`` when the model is built. ``RunModel`` and
``RunSRModel`` are placed between that class and BasicSR's ``SRModel`` and ``BaseModel``, so what a class of a user
overrides stays in effect and BasicSR's classes stay untouched. ``RunHooks`` is placed in front of it.
"""

import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.dist_util import get_dist_info, master_only
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lkdn_basicsr import checkpoints
from lkdn_basicsr.devices import exact_arithmetic, report_out_of_memory
from lkdn_basicsr.models.reparam_sr_model import ReparamSRModel, check_finite
from lkdn_basicsr.training import state
from lkdn_basicsr.training.validation import bare_networks, validate

if TYPE_CHECKING:
    from lkdn_basicsr.training.run import Run


class RunModel(BaseModel):
    """``BaseModel`` for a run that survives kills, full disks and failing ranks."""

    run: 'Run'

    @master_only
    def save_network(
        self, net: nn.Module | list[nn.Module], net_label: str, current_iter: int | str, param_key: Any = 'params'
    ) -> None:
        """Save networks atomically. BasicSR leaves an incomplete file when killed, and ignores a full disk."""
        name = f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
        nets, keys = (value if isinstance(value, list) else [value] for value in (net, param_key))
        contents: dict[str, Any] = {}
        for bare, key in zip(map(self.get_bare_model, nets), keys, strict=True):
            contents[key] = bare.state_dict()
            for entry in list(contents[key]):
                contents[key][entry.removeprefix('module.')] = contents[key].pop(entry).cpu()
        network = f'network_{net_label.removeprefix("net_")}'
        contents[network] = checkpoints.network_entry(self.get_bare_model(nets[0]), self.opt.get(network))
        digest = checkpoints.save(contents, os.path.join(self.opt['path']['models'], name))
        self.__dict__.setdefault('saved_files', {})[name] = digest

    def save_training_state(self, epoch: int, current_iter: int | str) -> None:
        """Save the training state, after its networks; BasicSR's does not suffice for an exact resume.

        Called with -1 at the end of training, and with ``best``, which no run resumes from.
        """
        if current_iter == -1:
            self.run.save_final_state()
        elif isinstance(current_iter, int):
            self.run.save_state(epoch, current_iter)

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Restore optimizers and schedulers, and what BasicSR forgets: best metrics and random states."""
        state.restore(self, resume_state)

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Load a network after its checksums are verified; never run code from the file."""
        net = self.get_bare_model(net)
        checkpoint = checkpoints.read(load_path, param_key)
        name, weights = type(net).__name__, checkpoint.weights
        get_root_logger().info(f'Loading {name} model from {load_path}, with param key: [{checkpoint.key}].')
        self._print_different_keys_loading(net, weights, strict)
        net.load_state_dict(weights, strict=strict)

    def reduce_loss_dict(self, loss_dict: dict[str, Tensor]) -> dict[str, float]:
        """Average the losses over the ranks, on every rank; BasicSR has the mean on the first rank only.

        The same message carries the signals that ranks have received, so that all stop at the same iteration. Raises
        InputError if a loss is NaN or infinite on any rank.
        """
        with torch.no_grad():
            values = [value.detach().float().mean() for value in loss_dict.values()]
            if self.opt['dist']:  # numbers are sent to the GPU as arguments of fills, which do not wait for it
                values += [values[0].new_full((), vote) for vote in self.run.stop.votes()]
            packed = torch.stack(values)
            if self.opt['dist']:
                torch.distributed.all_reduce(packed)
                packed[: len(loss_dict)] /= self.opt['world_size']
            numbers = packed.tolist()  # the only read from the GPU in an iteration
            if self.opt['dist']:
                self.run.stop.agree(numbers[len(loss_dict) :])
            log_dict = OrderedDict(zip(loss_dict, numbers))
        if not isinstance(self, ReparamSRModel):  # which checks before its optimizer step
            check_finite(log_dict, self.run.iteration)
        return log_dict


class RunSRModel(SRModel, RunModel):
    """``SRModel`` with validation split across the ranks."""

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        validate(self, self.run.ranks, dataloader, current_iter, tb_logger, save_img)

    def dist_validation(self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool) -> None:
        """Validate on all ranks. With BasicSR's, ranks reach the timeout of the next step while the first one works.

        A model class with its own ``nondist_validation`` runs it on the first rank; the others wait.
        """
        if type(self).nondist_validation is RunSRModel.nondist_validation:
            self.nondist_validation(dataloader, current_iter, tb_logger, save_img)
            return
        with bare_networks(self):
            if get_dist_info()[0] == 0:
                self.nondist_validation(dataloader, current_iter, tb_logger, save_img)
        self.run.ranks.gather(None)


class RunHooks(BaseModel):
    """Methods that BasicSR's loop calls, around those of the registered class, whatever that overrides."""

    run: 'Run'

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """BasicSR's loop calls this first in each iteration."""
        self.run.begin_iteration(current_iter)
        super().update_learning_rate(current_iter, warmup_iter)

    def optimize_parameters(self, current_iter: int) -> None:
        train = self.opt['datasets']['train']
        sizes = f'datasets:train:batch_size_per_gpu {train["batch_size_per_gpu"]} and gt_size {train.get("gt_size")}'
        remedy = 'lower one of them (with more GPUs and torchrun the global batch can stay the same)'
        remedy += ', or end other programs that use the memory'
        with report_out_of_memory(f'iteration {current_iter} with {sizes}', remedy):
            super().optimize_parameters(current_iter)

    def validation(self, dataloader: DataLoader, current_iter: Any, tb_logger: Any, save_img: bool = False) -> None:
        """Validate, and save the best network, which BasicSR does not; it validates the last iteration twice."""
        if self.is_train and self.run.is_validated(current_iter):
            return
        self._broadcast_buffers()
        with exact_arithmetic():
            super().validation(dataloader, current_iter, tb_logger, save_img)
        if self.is_train:
            self.run.finish_validation(current_iter)

    def save(self, epoch: int, current_iter: int | str) -> None:
        self._broadcast_buffers()
        super().save(epoch, current_iter)

    def _broadcast_buffers(self) -> None:
        """Copy the buffers of all networks from the first rank, so that every rank validates what is saved.

        DistributedDataParallel does so before a training step, which then changes them: batch norm averages the
        statistics of the images of its rank.
        """
        if not self.opt['dist']:
            return
        for name, net in vars(self).items():
            for buffer in net.buffers() if name.startswith('net_') and isinstance(net, nn.Module) else ():
                torch.distributed.broadcast(buffer, 0)


def model_class(registered: type[BaseModel], run: 'Run') -> type[BaseModel]:
    """Return a subclass of a registered model class, with the methods above for this run."""
    base = RunSRModel if issubclass(registered, SRModel) else RunModel
    bases = (base,) if issubclass(base, registered) else (registered, base)
    return type(registered.__name__, (RunHooks, *bases), {'run': run})

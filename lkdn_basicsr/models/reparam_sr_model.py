"""The BasicSR model class of this package, which trains a network in training form, and tests and saves it fused."""

import math
from collections import OrderedDict
from typing import Any

import torch
from basicsr.models import lr_scheduler
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lkdn_basicsr import checkpoints, reparam
from lkdn_basicsr.errors import InputError


def check_finite(log_dict: dict[str, float], current_iter: int) -> None:
    """Raise InputError if a loss or the norm of the gradients is NaN or infinite."""
    for name, value in log_dict.items():
        if not math.isfinite(value):
            reason = f'{name} is {value} at iteration {current_iter}: lower train:optim_g:lr or add train:warmup_iter'
            raise InputError(f'{reason}, and resume from the last checkpoint with --auto_resume')


@MODEL_REGISTRY.register()
class ReparamSRModel(SRModel):
    """BasicSR's SRModel for re-parameterizable networks, and for any other.

    Trains ``net_g`` in the form of the option file. Validates, tests and saves its fused form as well, of the EMA
    weights if ``train:ema_decay`` is set. A checkpoint may be in training form or fused, flat or under a key.
    """

    _current_iter = 0
    _validation_network: nn.Module | None = None  # during a validation, the fused network

    def load_network(
        self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Load a checkpoint of any form into a network of either form.

        Args:
            net: ``net_g`` or ``net_g_ema``. In a test, ``net_g`` is replaced by its fused form if the checkpoint is
                fused; training needs the training form.
            strict: if False, load what fits by name and size.
            param_key: ``params``, ``params_ema``, or None for a flat file; see ``checkpoints.parse``.

        Raises:
            InputError: the checkpoint is damaged, or of another network.
        """
        bare = self.get_bare_model(net)
        checkpoint = checkpoints.read(load_path, param_key)
        name, weights = type(bare).__name__, checkpoint.weights
        get_root_logger().info(f'Loading {name} model from {load_path}, with param key: [{checkpoint.key}].')
        try:
            fitting, fitting_weights = checkpoints.fit(bare, weights)
            if fitting is not bare and self.is_train:
                raise InputError(f'it {checkpoints.IS_FUSED}')
        except InputError as error:
            if strict:
                raise InputError(f'checkpoint {load_path} does not fit network_g: {error}') from None
            self._print_different_keys_loading(bare, weights, strict=False)
            if not set(bare.state_dict()) & set(weights):
                raise InputError(f'checkpoint {load_path} has no weights that fit network_g: {error}') from None
            bare.load_state_dict(weights, strict=False)
            return
        if fitting is not bare:
            self.net_g = self.model_to_device(fitting)
        fitting.load_state_dict(fitting_weights)

    def setup_optimizers(self) -> None:
        """Set up the optimizer as BasicSR does, without removing ``type`` from the options."""
        params = [param for param in self.net_g.parameters() if param.requires_grad]
        for name, param in self.net_g.named_parameters():
            if not param.requires_grad:
                get_root_logger().warning(f'Params {name} will not be optimized.')
        options = dict(self.opt['train']['optim_g'])
        self.optimizer_g = self.get_optimizer(options.pop('type'), params, **options)
        self.optimizers.append(self.optimizer_g)

    def setup_schedulers(self) -> None:
        """Set up the schedulers as BasicSR does, without removing ``type`` from the options."""
        options = dict(self.opt['train']['scheduler'])
        name = options.pop('type')
        cls = lr_scheduler.MultiStepRestartLR if name == 'MultiStepLR' else getattr(lr_scheduler, name)
        self.schedulers += [cls(optimizer, **options) for optimizer in self.optimizers]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set the learning rate of an iteration, from 1; ``warmup_iter`` is -1 for no linear warm-up.

        BasicSR's multi-step scheduler multiplies the rate that it finds, so BasicSR's warm-up changes it for good. Here
        the scheduler finds its own last rate, and warm-up is a factor on top.
        """
        for optimizer, scheduler in zip(self.optimizers, self.schedulers):
            for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr()):
                group['lr'] = lr
            if current_iter > 1:
                scheduler.step()
            if current_iter < warmup_iter:
                for group in optimizer.param_groups:
                    group['lr'] *= current_iter / warmup_iter

    def feed_data(self, data: dict[str, Any]) -> None:
        """Copy ``lq`` and, if there is one, ``gt`` to the device: (N, C, H, W), RGB, float in [0, 1] or uint8.

        uint8 needs a quarter of the transfer, and is converted on the device.
        """
        super().feed_data(data)
        for name in ('lq', 'gt'):
            if name in data and data[name].dtype == torch.uint8:
                setattr(self, name, getattr(self, name).float().div_(255))

    def optimize_parameters(self, current_iter: int) -> None:
        """Take one training step, or raise InputError if a loss or a gradient is not finite."""
        self._current_iter = current_iter
        self.optimizer_g.zero_grad()
        self.output = self.net_g(self.lq)

        losses = OrderedDict()
        if self.cri_pix:
            losses['l_pix'] = self.cri_pix(self.output, self.gt)
        if self.cri_perceptual:
            for name, loss in zip(('l_percep', 'l_style'), self.cri_perceptual(self.output, self.gt)):
                if loss is not None:
                    losses[name] = loss
        sum(losses.values()).backward()

        # DDP has averaged the gradients, so that a NaN of one rank stops all of them.
        gradients = [param.grad for param in self.net_g.parameters() if param.grad is not None]
        losses['grad_norm'] = torch.nn.utils.get_total_norm(gradients)
        self.log_dict = self.reduce_loss_dict(losses)
        self.optimizer_g.step()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def reduce_loss_dict(self, loss_dict: dict[str, Tensor]) -> dict[str, float]:
        """Average the losses over the ranks, and raise InputError if one is not finite."""
        log_dict = super().reduce_loss_dict(loss_dict)
        check_finite(log_dict, self._current_iter)
        return log_dict

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Average the parameters as BasicSR does, and copy the buffers, which it does not."""
        net, ema = self.get_bare_model(self.net_g), self.net_g_ema
        averages, params = list(ema.parameters()), list(net.parameters())
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, params, alpha=1 - decay)
        buffers = list(zip(ema.buffers(), net.buffers()))
        for dtype in {copy.dtype for copy, _ in buffers}:  # in lists of mixed types each would be copied on its own
            copies, originals = zip(*(pair for pair in buffers if pair[0].dtype == dtype))
            torch._foreach_copy_(copies, originals)

    def fused_network(self) -> nn.Module:
        """Return a fused copy of the network, of the EMA weights if there are any, in evaluation mode."""
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.net_g
        return reparam.fuse(self.get_bare_model(net)).eval()

    def test(self) -> None:
        """Super-resolve ``lq`` with the fused network."""
        net = self._validation_network or self.fused_network()
        with torch.no_grad():
            self.output = net(self.lq)

    def validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool = False
    ) -> None:
        """Validate with the fused network, which is built once for all images."""
        self._validation_network = self.fused_network()
        try:
            super().validation(dataloader, current_iter, tb_logger, save_img)
        finally:
            self._validation_network = None

    def save(self, epoch: int, current_iter: int) -> None:
        """Save the fused network as ``net_g_*_fused.pth``, then ``net_g_*.pth`` and the state as BasicSR does."""
        label = 'latest' if current_iter == -1 else current_iter
        self.save_network(self.fused_network(), 'net_g', f'{label}_fused')
        super().save(epoch, current_iter)

"""The BasicSR model class of this package: a super-resolution model that trains with branches and is used without."""

import math
from collections import OrderedDict

import torch
from basicsr.models import lr_scheduler
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY

from lkdn_basicsr import checkpoints, reparam
from lkdn_basicsr.errors import InputError


def check_finite(log_dict, current_iter):
    """Stop a run whose losses or gradients are not finite.

    Args:
        log_dict (dict): Names to floats.
        current_iter (int): named in the sentence.

    Raises:
        InputError: one is NaN or infinite.
    """
    for name, value in log_dict.items():
        if not math.isfinite(value):
            raise InputError(
                f'{name} is {value} at iteration {current_iter}: lower train:optim_g:lr or add '
                'train:warmup_iter, and go on from the last checkpoint with --auto_resume'
            )


@MODEL_REGISTRY.register()
class ReparamSRModel(SRModel):
    """BasicSR's SRModel for re-parameterizable networks, and for any other.

    Trains ``net_g`` in the form the option file describes; validates, tests and saves for use its fused form (of the
    EMA weights, if ``train:ema_decay`` is set). A checkpoint may be in training form, fused, flat or wrapped.

    Args:
        opt (dict): BasicSR's options.
    """

    # ------------------------------------------------ loading ------------------------------------------------ #

    def load_network(self, net, load_path, strict=True, param_key='params'):
        """Load a checkpoint of any form into a network of either form.

        Args:
            net (nn.Module): ``net_g`` or ``net_g_ema``. In a test, ``net_g`` becomes its fused form if that is the
                form of the checkpoint; training needs the branches.
            load_path (str): of the checkpoint.
            strict (bool): if False, load what fits by name and size.
            param_key (str | None): ``params``, ``params_ema``, or None for a flat file; see
                ``checkpoints.pick_weights``.

        Raises:
            InputError: the checkpoint is damaged, or of another network.
        """
        bare = self.get_bare_model(net)
        weights, key = checkpoints.pick_weights(checkpoints.load(load_path), param_key)
        get_root_logger().info(f'Loading {type(bare).__name__} model from {load_path}, with param key: [{key}].')
        try:
            fitting, weights = checkpoints.fit(bare, weights)
        except InputError as error:
            if strict:
                raise InputError(f'checkpoint {load_path} does not fit network_g: {error}') from None
            self._print_different_keys_loading(bare, weights, strict=False)
            if not set(bare.state_dict()) & set(weights):
                raise InputError(f'checkpoint {load_path} has nothing that fits network_g: {error}') from None
            bare.load_state_dict(weights, strict=False)
            return
        if fitting is not bare:
            if self.is_train:
                raise InputError(
                    f'checkpoint {load_path} is fused and network_g is in training form, whose branches '
                    'cannot be got back: give a checkpoint in training form, or conv: BSConvU and '
                    'upsampler: pixelshuffledirect'
                )
            self.net_g = self.model_to_device(fitting)
        fitting.load_state_dict(weights)

    # ------------------------------------------------ training ----------------------------------------------- #

    def setup_optimizers(self):
        """As BasicSR does, without taking ``type`` out of the options, so that it can be done again."""
        params = []
        for name, param in self.net_g.named_parameters():
            if param.requires_grad:
                params.append(param)
            else:
                get_root_logger().warning(f'Params {name} will not be optimized.')
        options = dict(self.opt['train']['optim_g'])
        self.optimizer_g = self.get_optimizer(options.pop('type'), params, **options)
        self.optimizers.append(self.optimizer_g)

    def setup_schedulers(self):
        """As BasicSR does, without taking ``type`` out of the options."""
        options = dict(self.opt['train']['scheduler'])
        name = options.pop('type')
        cls = lr_scheduler.MultiStepRestartLR if name == 'MultiStepLR' else getattr(lr_scheduler, name)
        self.schedulers += [cls(optimizer, **options) for optimizer in self.optimizers]

    def update_learning_rate(self, current_iter, warmup_iter=-1):
        """Set the learning rate of an iteration.

        BasicSR's multi-step scheduler goes on from the rate it finds, so that a warm-up that is left in place stays
        for good. Here the scheduler finds its own last rate, and warm-up is a factor on top.

        Args:
            current_iter (int): from 1.
            warmup_iter (int): number of iterations of linear warm-up; -1 for none.
        """
        for optimizer, scheduler in zip(self.optimizers, self.schedulers):
            for group, lr in zip(optimizer.param_groups, scheduler.get_last_lr()):
                group['lr'] = lr
            if current_iter > 1:
                scheduler.step()
            if current_iter < warmup_iter:
                for group in optimizer.param_groups:
                    group['lr'] *= current_iter / warmup_iter

    def feed_data(self, data):
        """Take a batch to the device.

        Args:
            data (dict): ``lq`` and, if there is one, ``gt``: Tensors (N, C, H, W), RGB; float in [0, 1], or uint8,
                which becomes that here, after the transfer of a quarter of the bytes.
        """
        super().feed_data(data)
        for name in ('lq', 'gt'):
            if name in data and data[name].dtype == torch.uint8:
                setattr(self, name, getattr(self, name).float().div_(255))

    def optimize_parameters(self, current_iter):
        """One step. What is not finite stops the run before it reaches the weights.

        Raises:
            InputError: a loss or a gradient is NaN or infinite.
        """
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

        # Gradients are those of all ranks by now, and so is what is logged: where one stops, all do.
        gradients = [param.grad for param in self.net_g.parameters() if param.grad is not None]
        losses['grad_norm'] = torch.nn.utils.get_total_norm(gradients)
        self.log_dict = self.reduce_loss_dict(losses)
        check_finite(self.log_dict, current_iter)
        self.optimizer_g.step()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    @torch.no_grad()
    def model_ema(self, decay=0.999):
        """Average the parameters as BasicSR does, and copy the buffers, which it forgets."""
        net, ema = self.get_bare_model(self.net_g), self.net_g_ema
        averages, params = list(ema.parameters()), list(net.parameters())
        torch._foreach_mul_(averages, decay)
        torch._foreach_add_(averages, params, alpha=1 - decay)
        for average, buffer in zip(ema.buffers(), net.buffers()):
            average.copy_(buffer)

    # -------------------------------------------- fused: test and save --------------------------------------- #

    def fused_network(self):
        """The network to use, fused: of the EMA weights if there are any; a copy, in evaluation mode."""
        net = self.net_g_ema if hasattr(self, 'net_g_ema') else self.net_g
        return reparam.fuse(self.get_bare_model(net)).eval()

    def test(self):
        """Super-resolve ``lq`` by the fused network."""
        net = getattr(self, '_validated_network', None) or self.fused_network()
        with torch.no_grad():
            self.output = net(self.lq)

    def validation(self, dataloader, current_iter, tb_logger, save_img=False):
        """Validate by the fused network, which is made once for all pictures."""
        self._validated_network = self.fused_network()
        try:
            super().validation(dataloader, current_iter, tb_logger, save_img)
        finally:
            del self._validated_network

    def save(self, epoch, current_iter):
        """Save ``net_g_*_fused.pth``, ready to use, and ``net_g_*.pth`` and the training state as BasicSR does."""
        label = 'latest' if current_iter == -1 else current_iter
        self.save_network(self.fused_network(), 'net_g', f'{label}_fused')
        super().save(epoch, current_iter)

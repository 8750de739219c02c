"""The arguments of LKDN: their definition, and how to infer them from a checkpoint."""

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

from lkdn_basicsr.archs.blocks import ACTIVATIONS, ATTENTIONS, UPSAMPLERS
from lkdn_basicsr.archs.convs import CONVS
from lkdn_basicsr.errors import InputError

State = Mapping[str, Any]
_CHOICES = dict(conv=[*CONVS], upsampler=[*UPSAMPLERS], attention=ATTENTIONS, activation=[*ACTIVATIONS])


@dataclasses.dataclass
class LKDNConfig:
    """The arguments of LKDN; one that is out of its range or has an unknown name is a ValueError.

    Attributes:
        conv: the convolution in the distillation path: Conv (3×3), BSConvU (blueprint separable), BSConvU_idt (with
            a shortcut, as in BSRN), BSConvU_rep (RBSB of the paper) or BSConvU_dbb (with a Diverse Branch Block). The
            last two are training forms, which ``reparam.fuse`` turns into BSConvU.
        upsampler: pixelshuffledirect, or its training form pixelshuffle_rep.
        attention: of each block: lka (large kernel), esa_cca (enhanced spatial, then contrast-aware channel attention,
            as in BSRN), esa, cca or none; see ``LKDB``.
        lka_dilation: d, from 1 to K, of the ⌈K/d⌉×⌈K/d⌉ convolution; the other one is (2d−1)×(2d−1).
        activation: gelu, relu, lrelu (slope 0.05), silu or prelu (one slope per block).
    """

    num_in_ch: int = 3  # channels of the input image
    num_out_ch: int = 3  # channels of the output image
    num_feat: int = 56  # width of the network, at least 2
    num_atten: int = 56  # width of the large kernel attention; without effect on the other attentions
    num_block: int = 8  # number of blocks (LKDB)
    upscale: int = 4  # scale factor
    num_in: int = 4  # number of copies of the input that the first convolution gets
    conv: str = 'BSConvU'
    upsampler: str = 'pixelshuffledirect'
    attention: str = 'lka'
    lka_kernel: int = 15  # K, the size of the convolution that lka decomposes
    lka_dilation: int = 3
    activation: str = 'gelu'

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in _CHOICES:
                if value not in _CHOICES[name]:
                    raise ValueError(f'{name} is {value}, but must be one of {", ".join(_CHOICES[name])}')
                continue
            minimum = 2 if name == 'num_feat' else 1  # half of num_feat is distilled
            if not isinstance(value, numbers.Integral) or value < minimum:
                raise ValueError(f'{name} is {value}, but must be an integer of at least {minimum}')
            setattr(self, name, int(value))  # a checkpoint cannot contain NumPy integers
        if self.lka_dilation > self.lka_kernel:
            limit = f'at most lka_kernel, {self.lka_kernel}; lower it, or raise lka_kernel'
            raise ValueError(f'lka_dilation is {self.lka_dilation}, but must be {limit}')


@dataclasses.dataclass
class LKDNSConfig(LKDNConfig):
    """The arguments of LKDN_S: those of LKDN with other defaults."""

    num_feat: int = 42
    num_atten: int = 42
    num_block: int = 5


def config_from_state_dict(state_dict: State, entry: State | None = None) -> tuple[str, dict[str, Any]]:
    """Return the class name, LKDN or LKDN_S, and all arguments of the LKDN that a state dict belongs to.

    They are inferred from keys and shapes. Where these leave a choice, the entry ``network_g`` of the checkpoint
    decides, or the metadata of the state dict, where earlier releases stored the arguments. Keys and shapes always win.
    Without a fitting entry, ``conv`` is BSConvU rather than BSConvU_idt, ``activation`` gelu, ``lka_kernel`` the
    largest with this ⌈K/d⌉, ``upscale`` the largest that fits the upsampler, ``num_in_ch`` equal to ``num_out_ch`` if
    possible, and the class LKDN_S if ``num_feat`` is 42. Without lka, its arguments are ``num_feat`` and the defaults.

    Args:
        state_dict: flat, or a checkpoint with ``params_ema`` or ``params`` (in this order), and its ``network_g``.
        entry: the ``network_g`` of the checkpoint of a flat state dict.

    Raises:
        InputError: it is not the state dict of an LKDN.
    """
    for key in ('params_ema', 'params'):
        if isinstance(state_dict.get(key), Mapping):
            return config_from_state_dict(state_dict[key], state_dict.get('network_g'))
    try:
        return _infer(state_dict, _plain(entry) or _from_metadata(state_dict))
    except (LookupError, AttributeError, TypeError, ValueError, ZeroDivisionError):
        missing = 'these are not the weights of an LKDN: keys or shapes are missing'
        raise InputError(f'{missing}; give a checkpoint of LKDN or LKDN_S') from None


def _infer(state_dict: State, stored: State) -> tuple[str, dict[str, Any]]:
    """Infer the arguments; ``stored`` ones decide where keys and shapes allow several."""

    def choose(name: str, possible: Sequence[Any]) -> Any:
        return stored[name] if stored.get(name) in possible else possible[0]

    num_feat, in_channels = state_dict['fea_conv.pw.weight'].shape[:2]
    fused_upsampler = 'upsampler.0.weight' in state_dict
    shuffled = state_dict['upsampler.0.weight' if fused_upsampler else 'upsampler.conv3.weight'].shape[0]
    num_block = len({key.split('.')[0] for key in state_dict if key[:1] == 'B' and key.split('.')[0][1:].isdigit()})

    # shuffled = num_out_ch · upscale², which is unique if num_out_ch has no square factor.
    upscale = choose('upscale', [n for n in range(math.isqrt(shuffled), 0, -1) if shuffled % n**2 == 0])
    num_out_ch = shuffled // upscale**2
    num_in, rest = divmod(in_channels, num_out_ch)
    if rest or num_in > 8:  # num_in_ch is not num_out_ch: the official number of copies, or one
        num_in = 4 if in_channels % 4 == 0 else 1
    divisors = [n for n in range(1, in_channels + 1) if in_channels % n == 0]
    num_in_ch = choose('num_in_ch', [in_channels // num_in, *divisors])

    num_atten = state_dict['B1.c5.weight'].shape[0]  # num_feat without lka
    attention, lka_kernel, lka_dilation = 'lka', 15, 3
    if 'B1.atten.pointwise.weight' in state_dict:
        lka_dilation = (state_dict['B1.atten.depthwise.weight'].shape[-1] + 1) // 2
        dilated = state_dict['B1.atten.depthwise_dilated.weight'].shape[-1]
        lka_kernel = choose('lka_kernel', range(lka_dilation * dilated, lka_dilation * (dilated - 1), -1))
    else:
        kinds = {'esa': 'B1.esa.conv1.weight', 'cca': 'B1.cca.conv_du.0.weight'}
        attention = '_'.join(kind for kind, key in kinds.items() if key in state_dict) or 'none'

    conv = choose('conv', _possible_convs({key.removeprefix('B1.c1_r.') for key in state_dict}))
    upsampler = 'pixelshuffledirect' if fused_upsampler else 'pixelshuffle_rep'
    is_prelu = 'act.weight' in state_dict
    activation = choose('activation', [name for name in ACTIVATIONS if (name == 'prelu') == is_prelu])

    arguments: dict[str, Any] = dict(num_in_ch=num_in_ch, num_out_ch=num_out_ch, num_feat=num_feat, num_atten=num_atten)
    arguments |= dict(num_block=num_block, upscale=upscale, num_in=in_channels // num_in_ch, conv=conv)
    arguments |= dict(upsampler=upsampler, attention=attention, lka_kernel=lka_kernel, lka_dilation=lka_dilation)
    arguments |= dict(activation=activation)
    # The two classes differ only in their defaults, so the width is a guess.
    return stored.get('type') or ('LKDN_S' if num_feat == 42 else 'LKDN'), arguments


def _possible_convs(keys: set[str]) -> list[str]:
    """Return the names in ``CONVS`` of the blocks with these keys, the most likely one first."""
    for mark, conv in (('rep1x1.weight', 'BSConvU_rep'), ('dw.kxk.0.weight', 'BSConvU_dbb'), ('weight', 'Conv')):
        if mark in keys:
            return [conv]
    return ['BSConvU', 'BSConvU_idt']


def _from_metadata(state_dict: State) -> dict[str, Any]:
    """Return ``type`` and arguments from the metadata of a state dict, where earlier releases stored them."""
    metadata = getattr(state_dict, '_metadata', {})
    for module in metadata.values():
        if 'arguments' in module:
            return _plain({'type': module['architecture'], **module['arguments']})
    # The first release only marked BSConvU_idt, by a module without weights.
    return {'conv': 'BSConvU_idt'} if 'B1.c1_r.shortcut' in metadata else {}


def _plain(entry: Any) -> dict[str, Any]:
    """Return the numbers and names of an entry that a file may contain; ``type`` only if it is LKDN or LKDN_S."""
    if not isinstance(entry, Mapping):
        return {}
    plain = {name: value for name, value in entry.items() if type(value) in (int, str)}
    if plain.get('type') not in ('LKDN', 'LKDN_S'):
        plain.pop('type', None)
    return plain

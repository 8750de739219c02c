"""Reading a network's class and arguments from its checkpoint, so that no option file is needed to rebuild it."""

import math

from lkdn_basicsr.archs.blocks import ACTIVATIONS
from lkdn_basicsr.errors import InputError


def config_from_state_dict(state_dict):
    """The class and the arguments of the LKDN that a state dict belongs to.

    Read from keys and shapes; where these leave a choice, from the arguments that ``state_dict()`` notes in the
    metadata, which ``torch.save`` keeps. Keys and shapes win: the notes of a fused network are those of its training
    form. Without a fitting note it is taken that ``conv`` is BSConvU and not BSConvU_idt, ``activation`` gelu,
    ``lka_kernel`` the largest with this ⌈K/d⌉, the scale the largest that fits the upsampler, that the picture that
    goes in has the colours of the one that comes out, and that the class is LKDN_S if ``num_feat`` is 42. What has no
    effect without ``lka`` is returned as ``num_feat`` and the defaults.

    Args:
        state_dict (dict): flat, or a checkpoint with ``params_ema`` or ``params`` (looked at in this order).

    Returns:
        tuple[str, dict]: the class name, LKDN or LKDN_S, and all its arguments.

    Raises:
        InputError: it is not the state dict of an LKDN.
    """
    for key in ('params_ema', 'params'):
        if key in state_dict:
            return config_from_state_dict(state_dict[key])
    try:
        return _read(state_dict)
    except (KeyError, IndexError, AttributeError, TypeError, ZeroDivisionError):
        raise InputError(
            'these are not the weights of an LKDN: keys or shapes are missing; give a checkpoint of LKDN or LKDN_S'
        ) from None


def _read(state_dict):
    architecture, notes = _notes(state_dict)

    def choose(name, possible):
        """The note, if it is possible; else the first."""
        return notes[name] if notes.get(name) in possible else possible[0]

    num_feat, in_channels = state_dict['fea_conv.pw.weight'].shape[:2]
    fused_upsampler = 'upsampler.0.weight' in state_dict
    shuffled = state_dict['upsampler.0.weight' if fused_upsampler else 'upsampler.conv3.weight'].shape[0]
    num_block = len({key.split('.')[0] for key in state_dict if key[:1] == 'B' and key.split('.')[0][1:].isdigit()})

    # shuffled = colours · upscale², and a colour count without a square factor makes that unique.
    upscale = choose('upscale', [n for n in range(math.isqrt(shuffled), 0, -1) if shuffled % n**2 == 0])
    num_out_ch = shuffled // upscale**2
    num_in, rest = divmod(in_channels, num_out_ch)
    if rest or num_in > 8:  # not the colours of the picture that comes out: the official number of repeats, or none
        num_in = 4 if in_channels % 4 == 0 else 1
    divisors = [n for n in range(1, in_channels + 1) if in_channels % n == 0]
    num_in_ch = choose('num_in_ch', [in_channels // num_in, *divisors])

    num_atten = state_dict['B1.c5.weight'].shape[0]  # without lka, this is num_feat
    attention, lka_kernel, lka_dilation = 'lka', 15, 3
    if 'B1.atten.pointwise.weight' in state_dict:
        lka_dilation = (state_dict['B1.atten.depthwise.weight'].shape[-1] + 1) // 2
        dilated = state_dict['B1.atten.depthwise_dilated.weight'].shape[-1]
        lka_kernel = choose('lka_kernel', range(lka_dilation * dilated, lka_dilation * (dilated - 1), -1))
    else:
        kinds = {'esa': 'B1.esa.conv1.weight', 'cca': 'B1.cca.conv_du.0.weight'}
        attention = '_'.join(kind for kind, key in kinds.items() if key in state_dict) or 'none'

    slopes = 'act.weight' in state_dict
    return architecture or ('LKDN_S' if num_feat == 42 else 'LKDN'), {  # the classes differ in their defaults alone
        'num_in_ch': num_in_ch,
        'num_out_ch': num_out_ch,
        'num_feat': num_feat,
        'num_atten': num_atten,
        'num_block': num_block,
        'upscale': upscale,
        'num_in': in_channels // num_in_ch,
        'conv': choose('conv', _possible_convs({key.removeprefix('B1.c1_r.') for key in state_dict})),
        'upsampler': 'pixelshuffledirect' if fused_upsampler else 'pixelshuffle_rep',
        'attention': attention,
        'lka_kernel': lka_kernel,
        'lka_dilation': lka_dilation,
        'activation': choose('activation', [name for name in ACTIVATIONS if (name == 'prelu') == slopes]),
    }


def _notes(state_dict):
    """The class and the arguments in the metadata: of the network, or of one that was wrapped when it was saved."""
    metadata = getattr(state_dict, '_metadata', {})
    for entry in metadata.values():
        if 'arguments' in entry:
            return entry['architecture'] if entry['architecture'] in ('LKDN', 'LKDN_S') else None, entry['arguments']
    # Before the arguments were noted, a module without weights marked BSConvU_idt.
    return None, {'conv': 'BSConvU_idt'} if 'B1.c1_r.shortcut' in metadata else {}


def _possible_convs(keys):
    """The names in ``CONVS`` of what has these keys, the likeliest first."""
    for mark, conv in (('rep1x1.weight', 'BSConvU_rep'), ('dw.kxk.0.weight', 'BSConvU_dbb'), ('weight', 'Conv')):
        if mark in keys:
            return [conv]
    return ['BSConvU', 'BSConvU_idt']

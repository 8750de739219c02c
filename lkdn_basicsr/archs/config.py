"""Reading a network's class and arguments from its checkpoint, so that no option file is needed to rebuild it."""
import math

from lkdn_basicsr.errors import InputError


def config_from_state_dict(state_dict):
    """The class and the arguments of the LKDN that a state dict belongs to.

    Read from keys and shapes. Two things are not in them. Whether the distillation goes through BSConvU or
    BSConvU_idt: that is read from the metadata which ``Module.state_dict()`` attaches and ``torch.save`` keeps; without
    it, BSConvU is returned. And the numbers of colours in and out, where they are not those of RGB or grey pictures: a
    guess is returned.

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
        raise InputError('these are not the weights of an LKDN: keys or shapes are missing; give a checkpoint of LKDN '
                         'or LKDN_S') from None


def _read(state_dict):
    num_feat, in_channels = state_dict['fea_conv.pw.weight'].shape[:2]
    fused_upsampler = 'upsampler.0.weight' in state_dict
    shuffled = state_dict['upsampler.0.weight' if fused_upsampler else 'upsampler.conv3.weight'].shape[0]
    num_block = len({key.split('.')[0] for key in state_dict if key[:1] == 'B' and key.split('.')[0][1:].isdigit()})

    # shuffled = colours · upscale², and a colour count without a square factor makes that unique.
    upscale = max(n for n in range(1, math.isqrt(shuffled) + 1) if shuffled % n**2 == 0)
    num_out_ch = shuffled // upscale**2
    # The picture that goes in has the colours of the one that comes out; else the official number of repeats, or none.
    num_in, rest = divmod(in_channels, num_out_ch)
    if rest or num_in > 8:
        num_in = 4 if in_channels % 4 == 0 else 1

    if 'B1.c1_r.rep1x1.weight' in state_dict:
        conv = 'BSConvU_rep'
    elif 'B1.c1_r.shortcut' in getattr(state_dict, '_metadata', ()):
        conv = 'BSConvU_idt'
    else:
        conv = 'BSConvU'
    return 'LKDN_S' if num_feat == 42 else 'LKDN', {  # the classes differ in their defaults alone
        'num_in_ch': in_channels // num_in,
        'num_out_ch': num_out_ch,
        'num_feat': num_feat,
        'num_atten': state_dict['B1.atten.pointwise.weight'].shape[0],
        'num_block': num_block,
        'upscale': upscale,
        'num_in': num_in,
        'conv': conv,
        'upsampler': 'pixelshuffledirect' if fused_upsampler else 'pixelshuffle_rep',
    }

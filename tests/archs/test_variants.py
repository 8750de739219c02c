import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.archs.blocks import ACTIVATIONS, ATTENTIONS
from lkdn_basicsr.archs.convs import CONVS
from lkdn_basicsr.optim import Adan
from tests.support.golden import fill, image

pytestmark = pytest.mark.slow  # hundreds of networks

SMALL = dict(num_feat=8, num_atten=6, num_block=2, upscale=2)
VARIANTS = [
    *(dict(conv=conv, attention=attention) for conv, attention in itertools.product(CONVS, ATTENTIONS)),
    *(dict(activation=activation, conv='BSConvU_idt') for activation in ACTIVATIONS),
    *(dict(lka_kernel=kernel, lka_dilation=d) for kernel, d in ((7, 3), (14, 3), (11, 3), (5, 1), (1, 1))),
    *(dict(conv=conv, upsampler='pixelshuffle_rep', upscale=3) for conv in CONVS),
    dict(conv='BSConvU_dbb', attention='esa', activation='prelu', upsampler='pixelshuffle_rep', num_in=1),
    dict(num_in_ch=1, num_out_ch=4, upscale=1, num_in=3),
    *(dict(upscale=upscale, num_block=depth) for upscale, depth in ((5, 9), (8, 1))),
]
every_variant = pytest.mark.parametrize('arguments', VARIANTS, ids=lambda variant: '-'.join(map(str, variant.values())))


def build(**arguments):
    return fill(archs.LKDN(**dict(SMALL, **arguments))).eval()


@every_variant
def test_all_parameters_are_trained(arguments):
    torch.manual_seed(0)
    network = archs.LKDN(**dict(SMALL, **arguments))
    optimizer = Adan(network.parameters(), lr=1e-3)
    config, upscale = network.config, network.config['upscale']
    lq = torch.rand(2, config['num_in_ch'], 8, 9)
    assert network(lq).shape == (2, config['num_out_ch'], 8 * upscale, 9 * upscale)
    before = network(lq).abs().mean()
    for _ in range(3):
        optimizer.zero_grad()
        loss = network(lq).abs().mean()
        loss.backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        optimizer.step()
    assert loss < before


@pytest.mark.parametrize('form', ['network', 'folded network', 'checkpoint'])
@every_variant
@torch.no_grad()
def test_variant_is_rebuilt_from_its_checkpoint_and_fuses_exactly(tmp_path, arguments, form):
    network = build(**arguments)
    x = image(9, 7, network.config['num_in_ch'])
    checkpoint = {'params': network.state_dict(), 'network_g': checkpoints.network_entry(network, None)}
    if form == 'checkpoint':
        fused = reparam.fuse_state_dict(checkpoint)
    else:
        plain = reparam.fuse(network, fold_input=form == 'folded network')
        fused = {'params': plain.state_dict(), 'network_g': checkpoints.network_entry(plain, None)}
    expected = dict(SMALL, **arguments)
    if arguments.get('attention', 'lka') != 'lka':
        expected['num_atten'] = expected['num_feat']  # without effect
    for saved, changes in ((checkpoint, {}), (fused, dict(upsampler='pixelshuffledirect'))):
        if saved is fused and expected.get('conv') in ('BSConvU_rep', 'BSConvU_dbb'):
            changes['conv'] = 'BSConvU'
        if saved is fused and form == 'folded network':
            changes['num_in'] = 1
        checkpoints.save(saved, tmp_path / 'net.pth')
        cls, found = archs.config_from_state_dict(checkpoints.load(tmp_path / 'net.pth'))
        rebuilt = getattr(archs, cls)(**found).double().eval()
        assert rebuilt.config == archs.LKDN(**dict(expected, **changes)).config
        rebuilt.load_state_dict(saved['params'])
        # float64 rounding through some forty layers, on values around 1, borders included.
        torch.testing.assert_close(rebuilt(x), network(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize('attention', ATTENTIONS)
def test_blocks_have_the_attention_that_is_named(attention):
    block = build(attention=attention).B1
    children = {name for name, module in block.named_children() if not isinstance(module, nn.Identity)}
    expected = {'atten', 'c6', 'pixel_norm'} if attention == 'lka' else set(attention.split('_')) - {'none'}
    assert children & {'atten', 'c6', 'pixel_norm', 'esa', 'cca'} == expected


@pytest.mark.parametrize('activation, slope', dict(gelu=None, relu=0, lrelu=0.05, silu=None, prelu=0.25).items())
def test_blocks_and_trunk_have_the_activation_that_is_named(activation, slope):
    network, x = archs.LKDN(**SMALL, activation=activation), torch.linspace(-3, 3, 20)
    expected = getattr(F, activation)(x) if slope is None else F.leaky_relu(x, slope)
    for act in (network.act, network.B1.act, network.B2.act):
        torch.testing.assert_close(act(x), expected, rtol=0, atol=0)

"""Parameters and Multi-Adds, compared with counts by hand and the paper."""

import pytest
import torch
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.archs.swinir_arch import SwinIR
from torch import nn
from torch.nn import functional as F

from lkdn_basicsr import archs, reparam
from lkdn_basicsr.evaluate.complexity import count, lr_size

PIXELS = 320 * 180


def test_the_figures_of_the_paper():
    params, multi_adds = count(archs.LKDN().eval(), 4)
    assert params == 321992
    assert f'{multi_adds / 1e9:.1f}' == '18.3'
    # The rest are two for each value of the LayerNorm, of 56 channels, in 8 blocks.
    assert (multi_adds - 2 * 56 * 8 * PIXELS) / 1e9 == pytest.approx(18.2246, abs=5e-5)
    plain = archs.LKDN_S(conv='BSConvU_rep', upsampler='pixelshuffle_rep').eval()
    assert count(plain, 4)[0] == 172449
    assert count(reparam.fuse(plain), 4)[0] == 129177


def test_a_convolution_by_hand():
    depthwise, last = nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 12, 3, padding=1, bias=False)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), depthwise, nn.GELU(), last, nn.PixelShuffle(2))
    params, multi_adds = count(network, 2)
    assert params == 3 * 8 + 8 + 8 * 25 + 8 + 8 * 12 * 9
    assert multi_adds == 640 * 360 * (3 * 8 + 8 * 25 + 8 * 12 * 9)


def read_a_value(module, inputs):
    """Do what the meta device cannot."""
    inputs[0].sum().item()


class Attention(nn.Module):
    """Attention over the pixels of each row, in one of three implementations that networks use."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.projection = kind, nn.Linear(3, 8)
        if kind == 'module':
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.projection(x.permute(0, 2, 3, 1).flatten(0, 1))  # (rows, columns, 8)
        if self.kind == 'module':
            return self.attention(x, x, x, need_weights=False)[0]
        if self.kind == 'operator':
            return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])
        return (x @ x.transpose(1, 2)).softmax(-1) @ x


@pytest.mark.parametrize('kind', ['products', 'operator', 'module'])
@pytest.mark.parametrize('on_meta', [True, False])
def test_attention_counts(kind, on_meta):
    network = Attention(kind).eval()
    if not on_meta:
        network.register_forward_pre_hook(read_a_value)
    linear = 3 * 8 + (4 * 8 * 8 if kind == 'module' else 0)
    assert count(network, 40)[1] == 18 * 32 * (linear + 2 * 32 * 8)


NORMS = [nn.LayerNorm(32), nn.BatchNorm2d(3), nn.GroupNorm(3, 3), nn.InstanceNorm2d(3, affine=True)]


@pytest.mark.parametrize('norm', NORMS, ids=lambda norm: type(norm).__name__)
def test_normalization_layers_count_two_per_value(norm):
    assert count(norm.eval(), 40)[1] == 2 * 3 * 18 * 32


@pytest.mark.filterwarnings('ignore:torch.meshgrid')
def test_networks_are_not_modified():
    arguments = {'depths': [2], 'embed_dim': 4, 'num_heads': [2], 'window_size': 4, 'img_size': 8}
    swinir = SwinIR(upscale=4, upsampler='pixelshuffledirect', **arguments)
    x = torch.rand(1, 3, 8, 8)
    for network in (swinir.eval(), MSRResNet(3, 3, 4, 1, 4).eval()):  # they store tensors of the size of an input
        with torch.no_grad():
            before = network(x)
            count(network, 4)
            assert torch.equal(network(x), before)


def test_lr_size():
    assert [lr_size(scale) for scale in (2, 3, 4, 8)] == [(360, 640), (240, 427), (180, 320), (90, 160)]

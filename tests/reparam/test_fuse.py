import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lkdn_basicsr import archs, checkpoints, reparam
from lkdn_basicsr.archs import convs
from tests.support.golden import fill, image

SMALL = dict(num_feat=12, num_atten=8, num_block=2)


def test_fusing_changes_neither_network_nor_mode_nor_random_state():
    network = archs.LKDN(**SMALL, conv='BSConvU_rep', upsampler='pixelshuffle_rep').bfloat16()
    before, random_state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    fused = reparam.fuse(network)
    assert fused.training and not reparam.fuse(network.eval()).training
    assert all(module.training for module in fused.modules())
    assert {p.dtype for p in fused.parameters()} == {torch.bfloat16}
    assert all(p.requires_grad for p in fused.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
@torch.no_grad()
def test_diverse_branches_are_one_convolution_up_to_the_border(kernel_size):
    block, x = fill(convs.BSConvU_dbb(5, 6, kernel_size)), image(7, 6, 5)
    fused = reparam.fuse(block)
    assert type(fused) is convs.BSConvU and fused.training
    torch.testing.assert_close(fused(x), block.eval()(x), rtol=0, atol=1e-12)  # float64 rounding of values around 1
    assert (fused(x) - block.train()(x)).abs().max() > 0.1  # training mode uses the statistics of the batch


@torch.no_grad()
def test_each_of_the_diverse_branches_contributes():
    block, x = fill(convs.BSConvU_dbb(5, 6, 3)).eval(), image(7, 6, 5)
    for branch in ('point', 'point_kxk', 'point_average', 'kxk'):
        without = copy.deepcopy(block)
        norm = without.dw.get_submodule(branch)[-1]
        nn.init.zeros_(norm.weight), nn.init.zeros_(norm.bias)
        padded = F.pad(block.pw(x), [0 if branch == 'point' else 1] * 4)
        expected = block.dw.get_submodule(branch)(padded)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(block(x) - without(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_diverse_branches_are_fused_in_float64_and_keep_their_dtype(dtype):
    block = fill(convs.BSConvU_dbb(5, 6, 3)).to(dtype)
    fused, exact = reparam.fuse(block), reparam.fuse(copy.deepcopy(block).double())
    from_state = reparam.fuse_state_dict(block.state_dict())
    assert from_state.keys() == fused.state_dict().keys()
    for key, value in exact.state_dict().items():
        assert torch.equal(fused.state_dict()[key], value.to(dtype)) and torch.equal(from_state[key], value.to(dtype))
    assert all(p.requires_grad for p in fused.parameters())


@pytest.mark.parametrize('conv', ['BSConvU', 'BSConvU_idt', 'BSConvU_rep', 'BSConvU_dbb'])
@pytest.mark.parametrize('upsampler', ['pixelshuffledirect', 'pixelshuffle_rep'])
def test_checkpoint_is_fused_to_the_same_numbers_as_the_network(conv, upsampler):
    network = archs.LKDN(**SMALL, conv=conv, upsampler=upsampler)
    expected = reparam.fuse(network).state_dict()
    checkpoint = {'params': network.state_dict(), 'params_ema': network.state_dict()}
    before = list(checkpoint['params'])
    fused = reparam.fuse_state_dict(checkpoint)
    assert list(checkpoint['params']) == before
    for state in (fused['params'], fused['params_ema'], reparam.fuse_state_dict(network.state_dict())):
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], value) for key, value in expected.items())
        assert archs.config_from_state_dict(state) == archs.config_from_state_dict(expected)
    again = reparam.fuse_state_dict(fused['params'])
    assert all(torch.equal(again[key], value) for key, value in expected.items())


class Doubled(nn.Sequential, reparam.Reparameterizable):
    """Twice the output of its inner BSConvU_rep."""

    def forward(self, x):
        return 2 * super().forward(x)

    def fuse(self):
        fused = copy.deepcopy(self[0])
        assert type(fused) is convs.BSConvU  # inner blocks are fused first
        for parameter in fused.dw.parameters():
            parameter.data *= 2
        return fused


class Foreign(nn.Sequential):
    """A network of someone else, with a method of that name."""

    def fuse(self):
        raise NotImplementedError


@torch.no_grad()
def test_nested_blocks_are_fused_from_the_inside():
    network = nn.Sequential(*(Doubled(convs.BSConvU_rep(4, 4)) for _ in range(2)), nn.GELU())
    x, fused = torch.rand(1, 4, 6, 5), reparam.fuse(network)
    assert type(fused[0]) is type(fused[1]) is convs.BSConvU and type(network[1][0]) is convs.BSConvU_rep
    torch.testing.assert_close(fused(x), network(x), rtol=0, atol=1e-5)  # float32, values around 10


@torch.no_grad()
def test_fuse_methods_of_other_networks_are_not_called():
    foreign, x = Foreign(nn.Conv2d(4, 4, 1), convs.BSConvU_rep(4, 4)), torch.rand(1, 4, 6, 5)
    for fused in (reparam.fuse(foreign), reparam.fuse(nn.Sequential(foreign))[0]):
        assert type(fused) is Foreign and type(fused[1]) is convs.BSConvU
        torch.testing.assert_close(fused(x), foreign(x), rtol=0, atol=1e-6)  # float32, values around 1


def test_official_checkpoint_fuses_to_the_official_fused_one(shared):
    fused = reparam.fuse_state_dict(checkpoints.load(shared / 'official/LKDN-S_x4.pth'))['params_ema']
    official = checkpoints.load(shared / 'official/LKDN-S_del_rep_x4.pth')
    assert fused.keys() == official.keys()
    for key, value in official.items():
        # The official fusing adds up in float32, with an error of some units in the last place of numbers around 1.
        torch.testing.assert_close(fused[key], value, rtol=0, atol=1e-6)

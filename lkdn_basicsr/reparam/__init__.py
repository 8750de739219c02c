"""Structural re-parameterization: blocks that are trained with several branches and run as one convolution."""

from lkdn_basicsr.reparam.fuse import (
    Reparameterizable,
    fuse,
    fuse_config,
    fuse_dbb,
    fuse_rbsb,
    fuse_state_dict,
    fuse_upsampler,
    fused_block,
)

__all__ = [
    'Reparameterizable',
    'fuse',
    'fuse_config',
    'fuse_dbb',
    'fuse_rbsb',
    'fuse_state_dict',
    'fuse_upsampler',
    'fused_block',
]

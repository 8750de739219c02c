"""Structural re-parameterization: blocks that train with many branches and run as one convolution."""

from lkdn_basicsr.reparam.fuse import fuse, fuse_dbb, fuse_rbsb, fuse_state_dict, fuse_upsampler, fused_block

__all__ = ['fuse', 'fuse_dbb', 'fuse_rbsb', 'fuse_state_dict', 'fuse_upsampler', 'fused_block']

"""Structural re-parameterization: blocks that train with many branches and run as one convolution."""
from lkdn_basicsr.reparam.fuse import apply_rule, fuse, fuse_rbsb, fuse_state_dict, fuse_upsampler

__all__ = ['apply_rule', 'fuse', 'fuse_rbsb', 'fuse_state_dict', 'fuse_upsampler']

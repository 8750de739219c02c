"""Structural re-parameterization: blocks that are trained with several branches and run as one convolution."""

from lkdn_basicsr.reparam.fuse import Reparameterizable, fuse, fuse_config, fuse_state_dict

__all__ = ['Reparameterizable', 'fuse', 'fuse_config', 'fuse_state_dict']

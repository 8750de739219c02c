from lkdn_basicsr.models.reparam_sr_model import ReparamSRModel

__all__ = ['ReparamSRModel']

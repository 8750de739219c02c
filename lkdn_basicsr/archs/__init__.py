from lkdn_basicsr.archs.config import config_from_state_dict
from lkdn_basicsr.archs.lkdn_arch import LKDN, LKDN_S

__all__ = ['LKDN', 'LKDN_S', 'config_from_state_dict']

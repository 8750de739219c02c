from lkdn_basicsr.optim.adan import Adan

__all__ = ['Adan']

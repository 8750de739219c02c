from lkdn_basicsr.data.imresize import imresize

__all__ = ['imresize']

from lkdn_basicsr.data.imresize import imresize
from lkdn_basicsr.data.paired_crop_dataset import PairedCropDataset

__all__ = ['PairedCropDataset', 'imresize']

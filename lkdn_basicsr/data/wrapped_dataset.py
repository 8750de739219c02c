"""BasicSR's own datasets, with errors that name the image."""

from typing import Any

from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from torch.utils.data import Dataset

from lkdn_basicsr.data.image_files import probe_image
from lkdn_basicsr.errors import InputError, one_line


class WrappedDataset(Dataset):
    """Another dataset, with its length and its attributes."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset: Any = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # requested by pickle before it is set
            raise AttributeError(name)
        return getattr(self.dataset, name)


def name_errors(dataset: Any) -> Any:
    """Return one of BasicSR's datasets of images wrapped, so that its errors name the image; any other as it is.

    They use what a decoder returns without a check, so that a damaged image is an attribute that None does not have.
    """
    return _NamedErrors(dataset) if type(dataset) in (PairedImageDataset, SingleImageDataset) else dataset


class _NamedErrors(WrappedDataset):
    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except Exception as error:
            found = self.dataset.paths[index]  # of GT and LQ, or of LQ only; keys of an LMDB
            paths = list(found.values()) if isinstance(found, dict) else [found]
            if 'db_paths' not in self.dataset.io_backend_opt:  # BasicSR's, for LMDBs
                for path in paths:
                    probe_image(path, 'pixels')  # raises what is wrong with it
            which = f'{" and ".join(dict.fromkeys(paths))} of the dataset {self.dataset.opt["name"]}'
            raise InputError(f'{which} cannot be read ({one_line(error)}); correct it or remove it.') from error

import os
import re

from setuptools import find_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(*path: str) -> str:
    with open(os.path.join(HERE, *path), encoding='utf-8') as file:
        return file.read()


setup(
    name='lkdn_basicsr',
    version=re.search(r"^__version__ = '(.+)'", read('lkdn_basicsr', '__init__.py'), re.MULTILINE)[1],
    description='LKDN (Large Kernel Distillation Network) for BasicSR: train, fuse and test it from option files',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    # The option files stay in the top-level folder in a clone, and are a package folder in the wheel.
    packages=[*find_packages(include=['lkdn_basicsr', 'lkdn_basicsr.*']), 'lkdn_basicsr.shipped_options'],
    package_dir={'lkdn_basicsr.shipped_options': 'options'},
    package_data={
        'lkdn_basicsr.evaluate': ['*.yml'],
        'lkdn_basicsr.report': ['*.html'],
        'lkdn_basicsr.shipped_options': ['*.yml', '*/*.yml', '*/*/*.yml'],
    },
    # torch 2.15 needs Python 3.11. BasicSR 1.4.2 is a source archive whose setup.py fails on Python 3.13.
    python_requires='>=3.11,<3.13',
    # Tested: the versions in constraints.txt with all tests; all lower bounds together with the tests of networks,
    # options, data, training and testing on one rank; the lower bounds of matplotlib and spandrel with the tests of
    # evaluate and compare.
    install_requires=[
        'basicsr==1.4.2',  # training loop, metrics and registries; requires tensorboard, scikit-image, Pillow and tqdm
        'torch>=2.11',
        'torchvision>=0.26',
        'numpy>=2.0',
        'opencv-python>=4.12',  # the first version that accepts a PNG filter
        'lmdb>=1.4.1',
        'filelock>=3.30',  # the first version that does not keep a lock in forked children, nor overwrite the lock file
        'pyyaml>=6.0.1',
        'jinja2>=3.1',  # the HTML page of study and compare; torch also depends on it
        'matplotlib>=3.9',  # the plots of study and compare
        'spandrel>=0.4.1',  # compare: architectures that neither BasicSR nor this package defines
        'scipy>=1.13,<2',  # BasicSR imports scipy.ndimage.filters, which SciPy 2 removes
        'setuptools>=77',  # BasicSR imports distutils, which only setuptools provides since Python 3.12
    ],
    extras_require={'test': ['pytest>=8', 'ruff', 'mypy']},
)

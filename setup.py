from setuptools import find_packages, setup

setup(
    name='lkdn_basicsr',
    version='0.1.0',
    description='LKDN (Large Kernel Distillation Network) for BasicSR: train, fuse and test it from option files',
    long_description=open('README.md', encoding='utf-8').read(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['lkdn_basicsr', 'lkdn_basicsr.*']),
    package_data={'lkdn_basicsr.evaluate': ['*.yml'], 'lkdn_basicsr.report': ['*.html']},
    # torch 2.15 needs 3.11; BasicSR 1.4.2 comes as a source archive whose setup.py fails on 3.13.
    python_requires='>=3.11,<3.13',
    # Tried: what constraints.txt has, with all tests; the lower ends together, with those of networks, options, data,
    # training and testing, but not with several ranks; those of matplotlib and spandrel with the rest of
    # constraints.txt and the tests of evaluate and compare.
    install_requires=[
        'basicsr==1.4.2',  # the trainer, validators and registries; brings tensorboard, scikit-image, Pillow and tqdm
        'torch>=2.11',
        'torchvision>=0.26',
        'numpy>=2.0',
        'opencv-python>=4.12',  # the first that takes a PNG filter
        'lmdb>=1.4.1',
        'pyyaml>=6.0.1',
        'matplotlib>=3.9',  # the plots of study and compare
        'jinja2>=3.1',  # the page of study and compare; torch also depends on it
        'spandrel>=0.4.1',  # compare: networks other than BasicSR's and ours, known by their checkpoints
        'scipy>=1.13,<2',  # BasicSR imports scipy.ndimage.filters, which SciPy 2 drops
        'setuptools>=77',  # BasicSR imports distutils, which Python 3.12 leaves to setuptools
    ],
    extras_require={'test': ['pytest>=8', 'ruff', 'mypy']},
)

"""Samples per second that one core feeds to training: PairedCropDataset against BasicSR's PairedImageDataset.

Both read the same images at GT 192 x4 with flips and transpositions, PairedCropDataset from a raw store, BasicSR's from
its PNG sub-image LMDB, both in the page cache, each in a process of its own with one thread; median of several runs.
Measured are

- feed:         only the dataset, one sample after the other in the sampler's order;
- feed_batches: batches of 64 by DataLoader in the same process, so with collation;
- feed_worker:  the same by one worker process, so with the transfer to the training process.

    python benchmarks/feed.py             # images made of the photographs in scikit-image
    python benchmarks/feed.py --hr DIR    # your own images
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

from common import build_parser, environment, photographs, run_apart, write_folder

# The checkout's own package, installed or not.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

BATCH_SIZE = 64
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
DESCRIPTION = {'feed': 'dataset', 'feed_batches': 'DataLoader, 0 workers', 'feed_worker': 'DataLoader, 1 worker'}


def measure(which, dataroot_gt, dataroot_lq, seconds):
    """Return samples per second in this process, by measure.

    Args:
        which: 'lkdn_basicsr' or 'basicsr'.
        dataroot_gt, dataroot_lq: Raw stores, or LMDBs of PNG sub-images.
        seconds: Duration of each measurement.
    """
    import cv2
    import torch
    from torch.utils.data import DataLoader

    from lkdn_basicsr.data.paired_crop_dataset import PairedCropDataset
    from lkdn_basicsr.data.sampler import StreamSampler

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    opt = {'name': 'feed', 'phase': 'train', 'scale': 4, 'gt_size': 192, 'use_hflip': True, 'use_rot': True}
    opt |= {'dataroot_gt': dataroot_gt, 'dataroot_lq': dataroot_lq, 'io_backend': {'type': 'lmdb'}}
    if which == 'lkdn_basicsr':
        dataset = PairedCropDataset(opt)
        sampler = StreamSampler(len(dataset), 0, BATCH_SIZE, ratio=10**6)  # more than is drawn, even of one image
    else:
        from basicsr.data.data_sampler import EnlargedSampler
        from basicsr.data.paired_image_dataset import PairedImageDataset

        dataset = PairedImageDataset(opt)
        sampler = EnlargedSampler(dataset, 1, 0, max(1000, 10**5 // len(dataset)))

    def rate(items, size):
        items = iter(items)
        for _ in range(8):
            next(items)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(items)
            count += size
        return count / (time.perf_counter() - start)

    for i in range(len(dataset)):
        dataset[i]
    return {
        'feed': rate((dataset[i] for i in sampler), 1),
        'feed_batches': rate(DataLoader(dataset, BATCH_SIZE, sampler=sampler), BATCH_SIZE),
        'feed_worker': rate(DataLoader(dataset, BATCH_SIZE, sampler=sampler, num_workers=1), BATCH_SIZE),
    }


def compare(hr, count, repeats, seconds):
    """Prepare both stores in a temporary folder, and measure both datasets in turn."""
    from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_folder

    with tempfile.TemporaryDirectory() as folder:
        if hr is None:
            hr = os.path.join(folder, 'images')
            os.mkdir(hr)
            write_folder(hr, photographs(count))
        roots = {
            'lkdn_basicsr': prepare_folder(os.path.join(folder, 'raw'), hr),
            'basicsr': prepare_folder(os.path.join(folder, 'png'), hr, options=StoreOptions(format='png')),
        }
        runs = {which: [] for which in roots}
        for i in range(repeats):
            for which, (dataroot_gt, dataroot_lq) in roots.items():
                print(f'run {i + 1} of {repeats}: {which}', file=sys.stderr)
                runs[which].append(
                    run_apart(__file__, '--measure', which, dataroot_gt, dataroot_lq, seconds, **ONE_THREAD)
                )
    speed = {
        which: {name: statistics.median(run[name] for run in measured) for name in DESCRIPTION}
        for which, measured in runs.items()
    }
    return {
        'ratio': {name: speed['lkdn_basicsr'][name] / speed['basicsr'][name] for name in DESCRIPTION},
        'samples_per_second': speed,
        'runs': runs,
        'environment': environment(cores=os.cpu_count()),
    }


def main():
    parser = build_parser(__doc__, images=12)
    parser.add_argument('--seconds', type=float, default=2, help='length of one measurement (default: 2)')
    parser.add_argument('--measure', nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        which, dataroot_gt, dataroot_lq, seconds = args.measure
        print(json.dumps(measure(which, dataroot_gt, dataroot_lq, float(seconds))))
        return
    from lkdn_basicsr.errors import InputError

    try:
        result = compare(args.hr, args.images, args.repeats, args.seconds)
    except InputError as error:
        sys.exit(f'Error: {error}')
    if args.json:
        print(json.dumps(result))
        return
    print(f'{"samples per second":24}{"lkdn_basicsr":>14}{"BasicSR":>10}{"ratio":>8}')
    for name, description in DESCRIPTION.items():
        new, basicsr = (result['samples_per_second'][which][name] for which in ('lkdn_basicsr', 'basicsr'))
        print(f'{description:24}{new:14,.0f}{basicsr:10,.0f}{result["ratio"][name]:7.0f}x')
    print(', '.join(f'{name} {value}' for name, value in result['environment'].items()))


if __name__ == '__main__':
    main()

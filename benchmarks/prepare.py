"""From folders of HR and LR x4 images to LMDBs: `lkdn_basicsr.prepare` against BasicSR's two steps.

BasicSR's steps are extract_subimages (repeated here, because its scripts are not in its package), then
make_lmdb_from_imgs, reading in parallel. All run on the same images, each in a process of its own with one worker per
core, in turn; medians of several runs. Importing is not timed. Measured are

- prepare_raw, prepare_png:  BasicSR's time divided by that of raw stores and of PNG sub-images;
- disk:                      bytes of raw stores divided by those of BasicSR's LMDBs;
- memory:                    peak memory of prepare (raw) for 300 images divided by that for 30 (links to these images;
                             proportional set sizes, so that shared memory counts once);
- imresize:                  BasicSR's time for bicubic x1/2, x1/3 or x1/4 of a 2040x1356 image divided by that of
                             imresize, at the scale where this is least.

    python benchmarks/prepare.py             # images made of the photographs in scikit-image
    python benchmarks/prepare.py --hr DIR    # your own images, 480 pixels or more on each side
"""

import argparse
import contextlib
import io
import json
import operator
import os
import statistics
import sys
import tempfile
import threading
import time

from common import build_parser, environment, photographs, run_apart, write_folder

# The checkout's own package, installed or not.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

WAYS = ('raw', 'png', 'basicsr')
SCALES = (2, 3, 4)


def extract_one(path, folder, crop_size, step):
    """Do to one image what BasicSR's extract_subimages.py does, with its settings: PNG level 3, threshold 0."""
    import cv2
    import numpy as np

    from lkdn_basicsr.data.paired_crop_dataset import sub_image_origins

    name = os.path.splitext(os.path.basename(path))[0].replace('x4', '')
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    index = 0
    for top in sub_image_origins(image.shape[0], crop_size, step):
        for left in sub_image_origins(image.shape[1], crop_size, step):
            index += 1
            window = np.ascontiguousarray(image[top : top + crop_size, left : left + crop_size])
            cv2.imwrite(f'{folder}/{name}_s{index:03d}.png', window, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def basicsr_way(hr, lr, out, workers):
    """Run BasicSR's two steps for HR and LR, with as many processes as there are cores."""
    import multiprocessing

    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    for source, name, scale in ((hr, 'HR_sub', 1), (lr, 'LR_sub', 4)):
        folder = os.path.join(out, name)
        os.makedirs(folder)
        with multiprocessing.get_context('fork').Pool(workers) as pool:
            jobs = [
                pool.apply_async(extract_one, (os.path.join(source, file), folder, 480 // scale, 240 // scale))
                for file in sorted(os.listdir(source))
            ]
            for job in jobs:
                job.get()
        files = sorted(os.listdir(folder))
        keys = [file.split('.png')[0] for file in files]
        make_lmdb_from_imgs(folder, f'{folder}.lmdb', files, keys, multiprocessing_read=True, n_thread=workers)


def measure(way, hr, lr, out, workers):
    """Measure one way in this process: seconds, bytes on disk, peak memory in bytes."""
    import lkdn_basicsr  # noqa: F401  BasicSR can be imported only after it

    if way == 'basicsr':
        import basicsr.utils.lmdb_util  # noqa: F401
    from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_folder

    with peak_memory() as peak:
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if way == 'basicsr':
                basicsr_way(hr, lr, out, workers)
            else:
                prepare_folder(out, hr, lr, StoreOptions(format=way, workers=workers))
        seconds = time.perf_counter() - start
    stores = [os.path.join(out, name) for name in os.listdir(out) if name.endswith('.lmdb')]
    disk = sum(os.stat(entry).st_blocks * 512 for store in stores for entry in os.scandir(store))
    return {'seconds': seconds, 'disk': disk, 'memory': max(peak)}


def measure_imresize(which):
    """Return the seconds for a 2040x1356 image in this process, at each scale."""
    import numpy as np

    import lkdn_basicsr  # noqa: F401  BasicSR can be imported only after it

    if which == 'lkdn_basicsr':
        from lkdn_basicsr.data import imresize
    else:
        from basicsr.utils.matlab_functions import imresize
    image = np.random.default_rng(0).integers(0, 256, (1356, 2040, 3), dtype=np.uint8)
    if which == 'basicsr':
        image = image.astype(np.float32) / 255
    seconds = []
    for scale in SCALES:
        runs = []
        for _ in range(9):
            start = time.perf_counter()
            imresize(image, 1 / scale)
            runs.append(time.perf_counter() - start)
        seconds.append(statistics.median(runs))
    return seconds


@contextlib.contextmanager
def peak_memory():
    """Yield a list that grows by the memory of this process and its children, in bytes, ten times a second."""
    samples, done = [], threading.Event()

    def family(pid):
        with open(f'/proc/{pid}/task/{pid}/children') as file:
            return [pid] + [one for child in file.read().split() for one in family(child)]

    def sample():
        while not done.wait(0.1):
            total = 0
            with contextlib.suppress(OSError):  # a child that has just ended
                for pid in family(os.getpid()):
                    with open(f'/proc/{pid}/smaps_rollup') as file:
                        total += sum(int(line.split()[1]) << 10 for line in file if line.startswith('Pss:'))
                samples.append(total)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        time.sleep(0.2)
        done.set()
        thread.join()


def measure_apart(way, hr, lr, workers, folder):
    """Run `measure` in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return run_apart(__file__, '--measure', way, hr, lr, out, workers)


def make_lr(hr, lr):
    import cv2

    from lkdn_basicsr.data import imresize

    for file in sorted(os.listdir(hr)):
        image = cv2.imread(os.path.join(hr, file))
        height, width = (side - side % 4 for side in image.shape[:2])
        name = os.path.splitext(file)[0]
        cv2.imwrite(os.path.join(lr, f'{name}x4.png'), imresize(image[:height, :width], 1 / 4))


def link(source, target, count=None):
    """Link to the images of a folder, repeated up to ``count``, under other names."""
    from lkdn_basicsr.data.image_files import list_images

    paths = list(list_images(source).values())
    os.mkdir(target)
    for n in range(count or len(paths)):
        round_, place = divmod(n, len(paths))
        os.symlink(os.path.abspath(paths[place]), os.path.join(target, f'{round_}_{os.path.basename(paths[place])}'))
    return target


def compare(hr, count, repeats, workers, work):
    from lkdn_basicsr.data.paired_crop_dataset import sub_image_origins

    with tempfile.TemporaryDirectory(dir=work) as folder:
        own, hr, lr = hr, os.path.join(folder, 'hr'), os.path.join(folder, 'lr')
        os.mkdir(lr)
        if own:
            link(own, hr)
        else:
            os.mkdir(hr)
            print(f'making {count} images', file=sys.stderr)
            write_folder(hr, photographs(count))
        make_lr(hr, lr)
        runs = {way: [] for way in WAYS}
        for n in range(repeats):
            for way in WAYS:
                print(f'run {n + 1} of {repeats}: {way}', file=sys.stderr)
                runs[way].append(measure_apart(way, hr, lr, workers, folder))
        memory = {}
        for links_count in (30, 300):
            print(f'memory for {links_count} images', file=sys.stderr)
            links = [link(source, f'{source}_{links_count}', links_count) for source in (hr, lr)]
            memory[links_count] = measure_apart('raw', *links, workers, folder)['memory']
        samples = count_windows(hr, sub_image_origins)
        count = len(os.listdir(hr))
    print('imresize', file=sys.stderr)
    resize = {which: run_apart(__file__, '--measure-imresize', which) for which in ('lkdn_basicsr', 'basicsr')}
    median = {way: {name: statistics.median(run[name] for run in runs[way]) for name in runs[way][0]} for way in WAYS}
    return {
        'ratio': {
            'prepare_raw': median['basicsr']['seconds'] / median['raw']['seconds'],
            'prepare_png': median['basicsr']['seconds'] / median['png']['seconds'],
            'disk': median['raw']['disk'] / median['basicsr']['disk'],
            'memory': memory[300] / memory[30],
            'imresize': min(map(operator.truediv, resize['basicsr'], resize['lkdn_basicsr'])),
        },
        'images': count,
        'samples': samples,
        'samples_per_second_per_core': {way: samples / median[way]['seconds'] / workers for way in WAYS},
        'bytes_on_disk': {way: median[way]['disk'] for way in WAYS},
        'peak_memory': {
            **{way: median[way]['memory'] for way in WAYS},
            **{f'raw, {count} images': peak for count, peak in memory.items()},
        },
        'imresize_seconds': {which: dict(zip(SCALES, seconds, strict=True)) for which, seconds in resize.items()},
        'runs': runs,
        'environment': environment(workers=workers),
    }


def count_windows(hr, sub_image_origins):
    from lkdn_basicsr.data.image_files import probe_image

    shapes = [probe_image(os.path.join(hr, file)) for file in os.listdir(hr)]
    return sum(len(sub_image_origins(height)) * len(sub_image_origins(width)) for height, width in shapes)


def main():
    parser = build_parser(__doc__, images=30)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument('--workers', type=int, default=cores, help='processes (default: one per core)')
    parser.add_argument('--work', metavar='DIR', help='folder for some gigabytes of temporary files')
    parser.add_argument('--measure', nargs=5, help=argparse.SUPPRESS)
    parser.add_argument('--measure-imresize', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure_imresize:
        print(json.dumps(measure_imresize(args.measure_imresize)))
        return
    if args.measure:
        *paths, workers = args.measure
        print(json.dumps(measure(*paths, int(workers))))
        return
    from lkdn_basicsr.errors import InputError

    try:
        result = compare(args.hr, args.images, args.repeats, args.workers, args.work)
    except InputError as error:
        sys.exit(f'Error: {error}')
    if args.json:
        print(json.dumps(result))
        return
    print(f'{result["images"]} images, {result["samples"]:,} pairs of sub-images, {args.workers} workers')
    print(f'{"":10}{"pairs/s/core":>14}{"MB on disk":>12}{"peak MB":>10}{"speed-up":>16}')
    for way in WAYS:
        ratio = f'{result["ratio"][f"prepare_{way}"]:.1f}x' if way != 'basicsr' else ''
        print(
            f'{way:10}{result["samples_per_second_per_core"][way]:14,.1f}{result["bytes_on_disk"][way] / 1e6:12,.0f}'
            f'{result["peak_memory"][way] / 1e6:10,.0f}{ratio:>16}'
        )
    print(
        f'disk, raw against BasicSR: {result["ratio"]["disk"]:.2f}x; '
        f'memory for 300 images against 30: {result["ratio"]["memory"]:.2f}x'
    )
    for scale in SCALES:
        new, basicsr = (result['imresize_seconds'][which][scale] for which in ('lkdn_basicsr', 'basicsr'))
        print(
            f'imresize 2040x1356 x1/{scale}: {new * 1e3:.0f} ms, BasicSR {basicsr * 1e3:.0f} ms, {basicsr / new:.1f}x'
        )
    print(', '.join(f'{name} {value}' for name, value in result['environment'].items()))


if __name__ == '__main__':
    main()

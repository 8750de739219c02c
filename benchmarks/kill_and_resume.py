"""``python benchmarks/kill_and_resume.py``: kill trainings at random moments, resume them, compare bit for bit.

A tiny LKDN is trained on random images by the usual command, once without interruption for each number of ranks. Then
it is started repeatedly with ``--auto_resume``. SIGKILL is sent at a random moment (a seeded one, but what the run is
doing then depends on the machine) to all its processes, or to one rank of several. Finally it runs to its end. Weights,
EMA, optimizer, scheduler, best metrics, random states and TensorBoard's values must be those of the uninterrupted run.
The exit status is 1 if one is not.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TOTAL = 60
OPTIONS = f"""
name: run
model_type: ReparamSRModel
scale: 2
num_gpu: 0
manual_seed: 0
network_g: {{type: LKDN, num_feat: 8, num_atten: 8, num_block: 1, upscale: 2, conv: BSConvU_rep}}
datasets:
  train: {{name: train, type: PairedCropDataset, dataroot_gt: gt, dataroot_lq: lq, gt_size: 16, use_hflip: true,
           use_rot: true, num_worker_per_gpu: WORKERS, batch_size_per_gpu: BATCH, dataset_enlarge_ratio: 8}}
  val: {{name: val, type: PairedCropDataset, dataroot_gt: gt, dataroot_lq: lq}}
path: {{}}
train:
  ema_decay: 0.9
  optim_g: {{type: Adan, lr: !!float 5e-3}}
  total_iter: {TOTAL}
  scheduler: {{type: MultiStepLR, milestones: [25], gamma: 0.5}}
  pixel_opt: {{type: L1Loss}}
val: {{val_freq: 3, metrics: {{psnr: {{type: calculate_psnr, crop_border: 2, test_y_channel: true}}}}}}
logger: {{print_freq: 1, save_checkpoint_freq: 4, use_tb_logger: true, keep_checkpoints: 3}}
"""


def make_folder(folder, ranks, workers):
    import cv2
    import numpy as np

    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, side in (('gt', 32), ('lq', 16)):
        (folder / name).mkdir()
        for i in range(5):
            cv2.imwrite(str(folder / name / f'{i}.png'), rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    (folder / 'train.yml').write_text(OPTIONS.replace('WORKERS', str(workers)).replace('BATCH', str(4 // ranks)))


def start(folder, ranks):
    """Start the training command with all of its output in ``out.txt``."""
    command = [
        sys.executable,
        '-m',
        *(['torch.distributed.run', '--standalone', f'--nproc_per_node={ranks}', '-m'] if ranks > 1 else []),
        'lkdn_basicsr.train',
        '-opt',
        'train.yml',
        '--auto_resume',
    ]
    path = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get('PYTHONPATH')]))
    with open(folder / 'out.txt', 'wb') as out:
        return subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, env=dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS='1')
        )


def descendants(pid):
    """Return the processes below one, as Linux lists them."""
    parents = {}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(')')[2].split()[1])
        except (OSError, IndexError):
            continue  # it has ended
    found, fresh = [], {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        found += fresh
    return found


def kill(process, one_rank, moments):
    """Send SIGKILL to the command and all that it has started, or to one rank of a torchrun."""
    below = descendants(process.pid)
    victims = [moments.choice(below)] if one_rank and below else [process.pid, *below]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def outcome(folder):
    """Return what must be equal: the last state and networks, and the values logged to TensorBoard."""
    import torch
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    run = folder / 'experiments/run'
    found = {path.name: torch.load(path, weights_only=True) for path in sorted((run / 'models').iterdir())}
    state = torch.load(run / f'training_states/{TOTAL}.state', weights_only=True)
    found['state'] = {
        key: state[key] for key in ('epoch', 'iter', 'optimizers', 'schedulers', 'best_metric_results', 'random')
    }
    found['events'] = sorted(
        (value.tag, event.step, *value.tensor.float_val)
        for file in folder.glob('tb_logger/run/events*')
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag.startswith(('losses/', 'metrics/'))
    )
    return found


def differences(one, other, where=''):
    """Yield where two trees of dicts, lists and tensors are not equal, bit for bit."""
    import torch

    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f'{where}/{key}')
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f'{where}/{i}')
    elif not (
        torch.equal(one, other) if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor) else one == other
    ):
        yield where


def run_to_end(folder, ranks):
    process = start(folder, ranks)
    if process.wait(600):
        raise RuntimeError((folder / 'out.txt').read_text()[-3000:])


def stress(home, ranks, workers, kills, moments, each):
    """Kill ``kills`` times, ``each`` times per training; yield a line of the table for each kill."""
    expected_home = home / f'uninterrupted{ranks}'
    make_folder(expected_home, ranks, workers)
    begin = time.monotonic()
    run_to_end(expected_home, ranks)
    duration, expected = time.monotonic() - begin, outcome(expected_home)
    text = (expected_home / 'out.txt').read_text()
    stamps = [
        datetime.fromisoformat(stamp.replace(',', '.'))
        for stamp in re.findall(r'^(\S+ \S+) INFO: (?:Start training|\[run|Save the)', text, re.MULTILINE)
    ]
    training = (stamps[-1] - stamps[0]).total_seconds()

    for i in range(0, kills, each):
        folder = home / f'killed{ranks}_{i}'
        make_folder(folder, ranks, workers)
        lines = []
        for _ in range(min(each, kills - i)):
            process = start(folder, ranks)
            # Mostly while it trains, sometimes while it starts.
            patience = time.monotonic() + (moments.uniform(0, duration) if moments.random() < 0.1 else 600)
            while (
                time.monotonic() < patience
                and process.poll() is None
                and 'Start training' not in (folder / 'out.txt').read_text()
            ):
                time.sleep(0.02)
            if time.monotonic() < patience:
                time.sleep(moments.uniform(0, training))
            one_rank = ranks > 1 and moments.random() < 0.5
            kill(process, one_rank, moments)
            text = (folder / 'out.txt').read_text()
            last = (re.findall(r'INFO: (.{1,60})', text) or ['before the first line of the log'])[-1]
            done = re.findall(r'iter: +(\d+), lr', text)
            lines.append([ranks, 'one' if one_rank else 'all', done[-1] if done else '-', last.replace('|', ' ')])
        try:
            run_to_end(folder, ranks)
            wrong = list(differences(expected, outcome(folder)))
        except (RuntimeError, OSError) as error:
            wrong = [f'lost: {error}']
        moved = list(folder.glob('*/*archived*')) + list(folder.rglob('.*.part'))
        result = 'identical' if not wrong + moved else f'DIFFERENT: {str((wrong + moved)[:3])}'
        yield from ([*line, result] for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0], allow_abbrev=False)
    parser.add_argument('--kills', type=int, default=20, help='for each number of ranks (default: 20)')
    parser.add_argument('--ranks', type=int, nargs='+', default=[1, 2], help='numbers of ranks (default: 1 2)')
    parser.add_argument('--workers', type=int, default=0, help='worker processes of the data loader (default: 0)')
    parser.add_argument('--each', type=int, default=2, help='kills of one training before it runs to its end')
    parser.add_argument('--seed', type=int, default=0, help='seed of the moments (default: 0)')
    args = parser.parse_args()

    moments, results = random.Random(args.seed), []
    print('| ranks | killed | at iteration | last line of the log | end of the resumed run |\n|---|---|---|---|---|')
    with tempfile.TemporaryDirectory() as home:
        for ranks in args.ranks:
            for line in stress(Path(home), ranks, args.workers, args.kills, moments, args.each):
                print('|', ' | '.join(map(str, line)), '|', flush=True)
                results.append(line[-1])
    good = results.count('identical')
    print(f'\n{good} of {len(results)} killed and resumed runs ended bit for bit like the uninterrupted one.')
    sys.exit(good != len(results))


if __name__ == '__main__':
    main()

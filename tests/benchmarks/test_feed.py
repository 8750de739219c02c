import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).parents[2]


def test_the_feed_benchmark_runs_on_pictures_of_ones_own(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (480, 480, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), picture)
    command = [
        sys.executable,
        ROOT / 'benchmarks' / 'feed.py',
        '--hr',
        tmp_path,
        '--repeats',
        '1',
        '--seconds',
        '0.02',
        '--json',
    ]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path).stdout
    result = json.loads(output)
    assert all(result['ratio'][name] > 0 for name in ('feed', 'feed_batches', 'feed_worker'))

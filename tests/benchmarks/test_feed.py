import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import write_images

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_feed_benchmark_runs_on_given_images(tmp_path):
    write_images(tmp_path, 'a', (480, 480))
    script = ROOT / 'benchmarks' / 'feed.py'
    command = [sys.executable, script, '--hr', tmp_path, '--repeats', '1', '--seconds', '0.02', '--json']
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path).stdout
    result = json.loads(output)
    assert all(result['ratio'][name] > 0 for name in ('feed', 'feed_batches', 'feed_worker'))

"""``python -m tests.fuzz --cases 1000 --seed 0``: run cases, print failures and a summary; status 1 if any failed."""

import argparse
import collections
import importlib
import pkgutil
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import lkdn_basicsr
from tests.fuzz import base
from tests.fuzz.case import Result, run_case, set_mode
from tests.fuzz.process import fork


def main() -> None:
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz', description='Fuzz the commands; see tests/fuzz.')
    parser.add_argument('--cases', type=int, default=1000, metavar='N', help='run the cases 0 to N-1 (default: 1000)')
    parser.add_argument('--seed', type=int, default=0, help='another seed gives other cases (default: 0)')
    parser.add_argument('--case', type=int, nargs='+', metavar='N', help='run only these cases')
    parser.add_argument('--keep', type=Path, metavar='DIR', help='keep the folder and the output of cases that fail')
    parser.add_argument('--timeout', type=float, default=20, help='seconds that a command may take (default: 20)')
    arguments = parser.parse_args()
    prepare_forks()
    numbers = arguments.case or range(arguments.cases)
    results = []
    work = Path(tempfile.mkdtemp(prefix='fuzz-'))  # TemporaryDirectory would be removed at the end of each fork
    try:
        original = build_original(work)
        for number in tqdm(numbers, unit='case', disable=None):
            (work / 'case').mkdir()
            result = run_case(arguments.seed, number, work / 'case', original, arguments.timeout)
            results.append(result)
            set_mode(work / 'case', 0o755)  # so that it can be removed
            if result.problems:
                how = f'--case {number} --seed {arguments.seed} --keep DIR'
                tqdm.write(f'{how}: {describe(result)}: {"; ".join(result.problems)}')
            if arguments.keep and (result.problems or arguments.case):
                keep(result, work / 'case', arguments.keep / f'case-{number}')
            shutil.rmtree(work / 'case', ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(summarize(results))
    sys.exit(any(result.problems for result in results))


def prepare_forks() -> None:
    """Import everything, and keep this process without threads."""
    warnings.filterwarnings('ignore', 'torch.quantize')  # deprecated, but in files that exist
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for module in pkgutil.walk_packages(lkdn_basicsr.__path__, 'lkdn_basicsr.'):
        importlib.import_module(module.name)
    importlib.import_module('torch.utils.tensorboard')


def build_original(work: Path) -> Path:
    """Make the folder that each case gets a copy of."""
    original = work / 'original'
    original.mkdir()
    for function in (
        lambda: base.build(original),
        *(lambda line=line: base.run(line.split()) for line in base.EARLIER_RUNS),
    ):
        outcome = fork(function, original, 300)
        assert outcome.status == 0, outcome.stdout + outcome.stderr
    return original


def describe(result: Result) -> str:
    command = shlex.join(text if len(text) < 80 else f'{text[:80]}…' for text in result.line)
    return f'{ascii(command)[1:-1]}, {", ".join(result.changes)}'


def keep(result: Result, folder: Path, target: Path) -> None:
    """Copy the folder of a case, with its output and what it was."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.move(folder, target)
    (target / 'stdout').write_text(result.outcome.stdout)
    (target / 'stderr').write_text(result.outcome.stderr)
    (target / 'case').write_text(
        '\n'.join([describe(result), f'exit status {result.outcome.status}', *result.problems, ''])
    )


def summarize(results: list[Result]) -> str:
    commands = collections.Counter(result.command.name for result in results)
    failed = sum(bool(result.problems) for result in results)
    passed = [result for result in results if not result.problems]
    successful = sum(result.outcome.status == 0 for result in passed)
    counts = f'{len(results)} cases ({", ".join(f"{name} {count}" for name, count in sorted(commands.items()))})'
    ends = f'{failed} failures; {len(passed) - successful} refused in one line, {successful} successful'
    return f'{counts}: {ends}; slowest {max(result.outcome.seconds for result in results):.1f} s'


if __name__ == '__main__':
    main()

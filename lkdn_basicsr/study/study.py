"""A study: train and measure each run that is not done, then write the report.

``measure_run`` and ``write_report`` use the GPU, so :class:`Trainer` calls them in subprocesses.
"""

import dataclasses
import os
import sys
import time

from lkdn_basicsr.errors import InputError, printable
from lkdn_basicsr.evaluate.benchmarks import Benchmark
from lkdn_basicsr.evaluate.measure import measure, measure_bicubic
from lkdn_basicsr.evaluate.results import Result
from lkdn_basicsr.locks import FolderLock
from lkdn_basicsr.report import report, table
from lkdn_basicsr.study.runs import StudyRun
from lkdn_basicsr.study.trainer import Trainer, claim
from lkdn_basicsr.training.distributed import Ranks

DONE = 'done'


@dataclasses.dataclass
class Study:
    """The runs of a study, and what is needed to process them.

    A rank that has processed a run stores ``DONE``, or why it failed, under the key of the run, for all ranks.
    """

    runs: list[StudyRun]  # checked
    benchmarks: list[Benchmark]
    out: str  # the folder of the study
    ranks: Ranks  # after their rendezvous
    trainer: Trainer  # entered

    def work(self) -> None:
        """Train and measure the runs that no other process has claimed, until all runs are done or have failed."""
        remaining = list(self.runs)
        while remaining:
            run, lock = self._claim_next(remaining)
            try:
                if self.ranks.get(run.key) is None:
                    self.ranks.set(run.key, self._train_and_measure(run))
            finally:
                lock.release()
            remaining.remove(run)

    def failures(self) -> dict[str, str]:
        """Return the names of the runs that failed, each with the reason."""
        states = {run.name: self.ranks.get(run.key) for run in self.runs}
        return {name: state for name, state in states.items() if state not in (None, DONE)}

    def write_report(self, title: str) -> None:
        """Write the table, the plots and the page of the runs that did not fail.

        The networks are timed here, one after the other, because no run is in training any more.
        """
        done = [run for run in self.runs if self.ranks.get(run.key) == DONE]
        if done:
            self.trainer.call(write_report, title, done, self.benchmarks, self.out, not self._is_distributed)

    def train(self, run: StudyRun) -> None:
        """Train a run to its end, unless it has been trained before."""
        record = run.prepare()
        if record.trained:
            return
        self._log(run, f'training on rank {self.ranks.launch.rank}')
        self.trainer.train(run, os.path.join(run.folder, 'study.log') if self._is_distributed else None)
        record.seconds, record.curves = run.read_events()
        record.trained = True
        run.write_record(record)

    def _claim_next(self, runs: list[StudyRun]) -> tuple[StudyRun, FolderLock]:
        """Return the first run that no other process has claimed, and its lock; wait while there is none."""
        is_silent = self._is_distributed
        while True:
            for run in runs:
                lock = claim(run)
                if lock is not None:
                    return run, lock
            if not is_silent:
                print(f'waiting for another process, which trains {", ".join(run.name for run in runs)}', flush=True)
                is_silent = True
            time.sleep(0.5)

    def _train_and_measure(self, run: StudyRun) -> str:
        """Return the state of the run afterwards: ``DONE``, or why it failed."""
        try:
            self.train(run)
            scores = self.trainer.call(measure_run, run, self.benchmarks, not self._is_distributed).scores
        except InputError as error:
            self._log(run, f'failed: {error}', is_error=True)
            return str(error)
        self._log(run, 'done, ' + ', '.join(f'{name} {score.mean_psnr:.2f} dB' for name, score in scores.items()))
        return DONE

    def _log(self, run: StudyRun, message: str, is_error: bool = False) -> None:
        heading = f'run {self.runs.index(run) + 1} of {len(self.runs)}, {run.name}'
        print(printable(f'{heading}: {message}'), file=sys.stderr if is_error else sys.stdout, flush=True)

    @property
    def _is_distributed(self) -> bool:
        return self.ranks.launch.world_size > 1


def measure_run(run: StudyRun, benchmarks: list[Benchmark], progress: bool, timed: bool = False) -> Result:
    """Measure a trained run; results that were measured before come from the cache."""
    record = run.read_record()
    assert record is not None  # the run was trained
    result = measure(run.checkpoint, benchmarks, run.scale, _cache(run.out), run.name, progress, timed)
    result.seconds, result.curves = record.seconds, record.curves
    return result


def write_report(title: str, runs: list[StudyRun], benchmarks: list[Benchmark], out: str, progress: bool) -> None:
    """Time the networks of trained runs, and write and print the report."""
    results = [measure_bicubic(benchmarks, runs[0].scale, _cache(out))]
    results += [measure_run(run, benchmarks, progress, timed=True) for run in runs]
    report.write_report(out, title, results, benchmarks)
    print(f'\n{table.markdown(results)}\nThe page: {printable(os.path.join(out, "index.html"))}', flush=True)


def _cache(out: str) -> str:
    return os.path.join(out, 'methods')  # as in lkdn_basicsr.compare

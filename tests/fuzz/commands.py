"""The commands that are run. All of them succeed in the folder of ``base.py``."""

from dataclasses import dataclass

HELD, IMAGES = 'sets/held/*/*', ('train/*/*', 'sets/held/*/*')
RUN = ('experiments/run/models/*', 'experiments/run/training_states/*', 'tb_logger/run/*')
OTHER = ('experiments/other/models/net_g_2.pth', 'experiments/other/training_states/2.state')
STUDY = ('study/experiments/a/study.json', 'study/experiments/a/models/*', 'study/experiments/a/training_states/*')
STUDY += ('study/tb_logger/a/*', 'study/methods/*/*.json', 'table/1_a.yml', 'train.yml', HELD)
CACHE = ('comparison/methods/*/*.json', 'comparison/methods/*/*.json', 'comparison/methods/*/held/*')


@dataclass(frozen=True)
class Command:
    """A command line without ``python -m lkdn_basicsr``, and the files that a case may damage, as patterns."""

    line: str
    reads: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name in the summary."""
        module, *arguments = self.line.split()
        return f'{module} --check' if '--check' in arguments else module.partition('.')[0]


BRANCH = 'train -opt train.yml --force_yml name=branch path:resume_state=experiments/other/training_states/2.state'
COMPARE = 'compare --models lkdn.pth fused.pth --sets sets/held --scale 2 --out comparison'
COMMANDS = (
    Command('train -opt train.yml', ('train.yml', *IMAGES)),
    Command('train -opt raw.yml', ('raw.yml', 'raw/*/*')),
    Command('train -opt lmdb.yml', ('lmdb.yml', 'png/*/*')),
    Command('train -opt basicsr.yml', ('basicsr.yml', 'msrresnet.pth', *IMAGES)),
    Command('train -opt basicsr_lmdb.yml', ('basicsr_lmdb.yml', 'png/*/*')),
    Command('train -opt pretrained.yml', ('pretrained.yml', 'lkdn.pth')),
    Command('train -opt derived.yml', ('derived.yml', 'train.yml')),
    Command('train -opt train.yml --auto_resume', ('train.yml', *RUN)),
    Command('train -opt train.yml --auto_resume', RUN),
    Command(BRANCH, ('train.yml', *OTHER)),
    Command('train -opt raw.yml --check', ('raw.yml', 'raw/*/*')),
    Command('train -opt lmdb.yml --check', ('lmdb.yml', 'png/*/*')),
    Command('train -opt basicsr.yml --check', ('basicsr.yml', 'msrresnet.pth', *IMAGES)),
    Command('train -opt pretrained.yml --check', ('pretrained.yml', 'lkdn.pth', *IMAGES)),
    Command('train -opt train.yml --auto_resume --check', ('train.yml', *RUN)),
    Command('test -opt test.yml', ('test.yml', 'lkdn.pth', HELD)),
    Command('test -opt test_fused.yml', ('test_fused.yml', 'fused.pth', HELD)),
    Command('test -opt test_basicsr.yml', ('test_basicsr.yml', 'msrresnet.pth', HELD)),
    Command('test -opt test.yml --check', ('test.yml', 'lkdn.pth', HELD)),
    Command(COMPARE, ('lkdn.pth', 'fused.pth', *CACHE, HELD)),
    Command(COMPARE, CACHE),
    Command('study.__main__ table --iters 2 --out study', STUDY),
    Command('study.__main__ table --iters 3 --out study', STUDY),
    Command('prepare train --hr train/gt --lr train/lq --out new --scale 2 --workers 1', ('train/*/*',)),
    Command('prepare train --hr train/gt --out new --scale 2 --format png --crop-size 16 --step 8', ('train/gt/*',)),
    Command('prepare train --hr train/gt --lr train/lq --out raw --scale 2', ('train/*/*', 'raw/*/*')),
    Command('prepare train --hr train/gt --lr train/lq --out interrupted --scale 2', ('train/*/*', 'interrupted/.*/*')),
    Command('prepare benchmark --hr train/gt --out bench --scale 2', ('train/gt/*',)),
    Command('prepare verify raw/HR.lmdb png/LR_bicubic_X2_sub.lmdb', ('raw/HR.lmdb/*', 'png/L*/*')),
)

# By module: what its output contains when it begins to change files, and the earlier files that it may change.
STARTED = {'train': 'Start training', 'test': 'Testing ', 'study.__main__': '(?m)^run 1 of 1'}
WRITES = {'compare': 'comparison/', 'study.__main__': 'study/', 'prepare': 'interrupted/'}
WRITES['train'] = '(experiments|tb_logger)/(run|other)/'
NEVER = '(?!)'


def allowed_changes(line: list[str]) -> tuple[str, str]:
    """Return two regular expressions for a command line: ``STARTED`` and ``WRITES``."""
    if '--check' in line or 'verify' in line or '--help' in line:
        return NEVER, NEVER
    continues = line[0] != 'train' or '--auto_resume' in line  # otherwise the earlier run is only moved aside
    return STARTED.get(line[0], ''), WRITES.get(line[0], NEVER) if continues else NEVER

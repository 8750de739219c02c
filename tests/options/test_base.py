"""Option files that say only what differs from their base."""

import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.option_file import dump_yaml, force_options, load_yaml, read_option_file
from lkdn_basicsr.options.parse import parse_options
from tests.support.option_files import TRAIN, train_options, write_options, write_pictures

BASE = """name: base
scale: 4
datasets:
  train: {gt_size: 192, dataroot: a}
  val: {dataroot: b}
train:
  optim_g:
    type: Adan
    lr: 5e-3
    betas: [0.98, 0.92, 0.99]
  milestones: [1, 2]
"""


@pytest.fixture
def files(tmp_path):
    """Writes ``folder/name=text``; returns the path of the last one."""
    (tmp_path / 'options/table').mkdir(parents=True)

    def files(**texts):
        for name, text in texts.items():
            path = tmp_path / 'options' / ('table' if name.startswith('row') else '') / f'{name}.yml'
            path.write_text(text)
        return str(path)

    return files


def test_mappings_merge_and_anything_else_is_replaced(files):
    opt = load_yaml(
        files(
            base=BASE,
            row='base: ../base.yml\nname: row\ndatasets:\n  train: {gt_size: 96}\n  val: ~\n'
            'train:\n  optim_g: {lr: 1e-3}\n  milestones: [3]\n  more: {a: 1}\n',
        )
    )
    assert 'base' not in opt and list(opt) == ['name', 'scale', 'datasets', 'train']  # the order of the base
    assert opt['name'] == 'row' and opt['scale'] == 4
    assert opt['datasets'] == {'train': {'gt_size': 96, 'dataroot': 'a'}, 'val': None}
    assert opt['train'] == {
        'optim_g': {'type': 'Adan', 'lr': 1e-3, 'betas': [0.98, 0.92, 0.99]},
        'milestones': [3],
        'more': {'a': 1},
    }


@pytest.mark.parametrize(
    'block, expected',
    [
        ('{type: Adam, lr: 1}', {'type': 'Adam', 'lr': 1}),
        ('{type: Adan, lr: 1}', {'type': 'Adan', 'lr': 1, 'betas': [0.98, 0.92, 0.99]}),
        ('~', None),
        ('3', 3),
    ],
)
def test_block_of_another_type_takes_nothing_from_the_base(files, block, expected):
    opt = load_yaml(files(base=BASE, row=f'base: ../base.yml\ntrain:\n  optim_g: {block}\n'))
    assert opt['train']['optim_g'] == expected and opt['train']['milestones'] == [1, 2]


def test_block_stands_on_what_is_null_or_has_no_type_in_the_base(files):
    opt = load_yaml(files(base='a: ~\nb: {lr: 1}\n', row='base: ../base.yml\na: {x: 1}\nb: {type: Adam}\n'))
    assert opt == {'a': {'x': 1}, 'b': {'lr': 1, 'type': 'Adam'}}


def test_chain_of_bases(files):
    path = files(base='a: 1\nb: 1\nc: 1\n', middle='base: base.yml\nb: 2\nc: 2\n', row='base: ../middle.yml\nc: 3\n')
    assert load_yaml(path) == {'a': 1, 'b': 2, 'c': 3}


def test_places_are_those_where_a_key_really_stands(files, tmp_path):
    source = read_option_file(
        files(base=BASE, row='base: ../base.yml\ntrain:\n  optim_g: {type: SGD}\ndatasets:\n  train:\n    gt_size: 7\n')
    )
    base, row = f'{tmp_path}/options/base.yml', f'{tmp_path}/options/table/row.yml'
    assert source.where('scale') == f'{base}, line 2: scale'
    assert source.where('datasets', 'train', 'dataroot') == f'{base}, line 4: datasets:train:dataroot'
    assert source.where('datasets', 'train', 'gt_size') == f'{row}, line 6: datasets:train:gt_size'
    # The base's lr is no more; what is missing is missing in the block of the row.
    assert source.where('train', 'optim_g', 'lr') == f'{row}, line 3: train:optim_g:lr'
    force_options(source, ['scale=3'])
    assert source.where('scale') == f'{row}, --force_yml: scale'


@pytest.mark.parametrize(
    'row, said',
    [
        (
            'base: ../bsae.yml\n',
            r'row\.yml, line 1: base is \.\./bsae\.yml, but .*options/bsae\.yml is no file; '
            r'did you mean .*options/base\.yml',
        ),
        ('base: nowhere/at/all\n', r'base is nowhere/at/all, but .* is no file; the path is relative to the file'),
        ('base: ..\n', 'base is .., but .* is no file'),
        ('base: ~\n', r'line 1: base is None, but must be the path'),
        ('base: [a]\n', 'must be the path'),
        ('base: row.yml\n', r'base is row\.yml, which is based on this file'),
        ('base: ../cycle.yml\n', r'cycle\.yml, line 2: base is table/row\.yml, which is based on this file'),
        ('base: ../empty.yml\n', r'empty\.yml is empty'),
        ('base: ../wrong.yml\n', r'options/wrong\.yml, line 2: a is given a second time'),
    ],
)
def test_bases_that_are_refused(files, row, said):
    path = files(base=BASE, cycle='a: 1\nbase: table/row.yml\n', empty='', wrong='a: 1\na: 2\n', row=row)
    with pytest.raises(InputError, match=said) as caught:
        load_yaml(path)
    assert '\n' not in str(caught.value)


def test_base_behind_a_symbolic_link(files, tmp_path):
    files(base='a: 1\n', row='base: ../base.yml\n')
    (tmp_path / 'link').symlink_to(tmp_path / 'options/table')
    assert load_yaml(str(tmp_path / 'link/row.yml')) == {'a': 1}


class TestChecked:
    """With real option files: the row differs from the small training file."""

    @pytest.fixture
    def row(self, files, tmp_path):
        write_pictures(tmp_path)
        files(base=TRAIN.replace('ROOT', str(tmp_path)))
        return lambda text: files(row=f'base: ../base.yml\n{text}')

    @pytest.mark.parametrize(
        'text, said',
        [
            ('train:\n  optim_g:\n    lrr: 1\n', r'row\.yml, line 4: train:optim_g:lrr is not an argument of Adam'),
            ('network_g:\n  upscale: 4\n', r'row\.yml, line 3: network_g:upscale is 4, but scale is 2'),
            ('scale: 4\n', r'base\.yml, line 37: network_g:upscale is 2, but scale is 4'),
            ('train:\n  total_iter: 10\n  warmup_iter: 10\n', r'row\.yml, line 4: train:warmup_iter is 10'),
            ('bsae: x\n', r'row\.yml, line 2: bsae is not known; did you mean base'),
            ('train:\n  optim_g: {type: SGD}\n', r'row\.yml, line 3: train:optim_g has no lr'),
        ],
    )
    def test_mistakes_are_told_where_they_stand(self, row, tmp_path, text, said):
        with pytest.raises(InputError, match=said):
            parse_options(str(tmp_path), True, ['-opt', row(text)])

    def test_forced_keys_may_stand_in_the_base(self, row, tmp_path):
        forced = ['--force_yml', 'train:optim_g:lr=1e-7', 'datasets:val=~']
        opt, _ = parse_options(str(tmp_path), True, ['-opt', row('name: row\n'), *forced])
        assert opt['train']['optim_g']['lr'] == 1e-7 and list(opt['datasets']) == ['train'] and opt['name'] == 'row'
        with pytest.raises(InputError, match=r'train:lr is not in .*row\.yml or its base'):
            parse_options(str(tmp_path), True, ['-opt', row(''), '--force_yml', 'train:lr=1'])

    def test_effective_options_are_merged_and_start_the_same_run(self, row, tmp_path):
        opt, _ = parse_options(str(tmp_path), True, ['-opt', row('train:\n  optim_g: {type: SGD, lr: 0.1}\n')])
        (tmp_path / 'again.yml').write_text(opt.effective)
        again, _ = parse_options(str(tmp_path), True, ['-opt', str(tmp_path / 'again.yml')])
        assert 'base' not in opt and dump_yaml(again) == opt.effective and again == opt

    def test_same_options_with_and_without_a_base(self, row, tmp_path):
        merged = read_option_file(row('name: small\n'))
        alone = read_option_file(write_options(tmp_path / 'alone.yml', train_options(tmp_path)))
        for source in (merged, alone):
            check_schema(source, True)
        assert merged.opt == alone.opt

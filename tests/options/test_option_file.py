import functools
import sys

import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options import option_file as module
from lkdn_basicsr.options.option_file import dump_yaml, find_option_file, force_options, read_option_file
from lkdn_basicsr.training.run import Run
from tests.support.option_files import TRAIN, parse_run, write_options, write_pairs

BASE = """name: base
scale: 4
datasets:
  train: {gt_size: 192, dataroot: a}
  val: {dataroot: b}
train:
  optim_g: {type: Adan, lr: 5e-3, betas: [0.98, 0.92, 0.99]}
  milestones: [1, 2]
"""


@pytest.fixture
def write(tmp_path):
    return functools.partial(write_options, tmp_path / 'x.yml')


@pytest.mark.parametrize(
    'text, reason',
    [
        *(('', 'is empty'), ('# only a comment\n', 'is empty')),
        *(('- a\n- b\n', 'is one list'), ('hello\n', 'is one str')),
        *((text, 'is not UTF-8') for text in (b'\x80\x04\x95\xff\xfe', b'a: "\xe4"', 'a: 1'.encode('utf-16'))),
        *(('a: [1, 2\n', 'is not YAML'), (b'a' * (1 << 21), 'too large')),
    ],
)
def test_files_that_are_not_option_files(write, text, reason):
    path = write(text)
    with pytest.raises(InputError) as caught:
        read_option_file(path)
    assert reason in str(caught.value) and path in str(caught.value) and '\n' not in str(caught.value)


def test_missing_file_folder_and_near_name(write, tmp_path):
    write('a: 1\n')
    with pytest.raises(InputError, match=r'does not exist, .*; did you mean .*/x\.yml\?'):
        read_option_file(str(tmp_path / 'xx.yml'))
    with pytest.raises(InputError, match='does not exist, .*; check the path'):
        read_option_file('no_such_folder/a.yml')
    with pytest.raises(InputError, match='is a folder'):
        read_option_file(str(tmp_path))


class TestShippedFiles:
    @pytest.fixture(autouse=True)
    def shipped(self, tmp_path, monkeypatch):
        """Two shipped files, and another folder as the current one."""
        folder = tmp_path / 'shipped'
        (folder / 'ablation').mkdir(parents=True)
        (folder / 'train.yml').write_text('a: shipped\n')
        (folder / 'ablation/1.yml').write_text('base: ../train.yml\n')
        (tmp_path / 'secret.yml').write_text('a: 1\n')
        (tmp_path / 'my/runs').mkdir(parents=True)
        monkeypatch.setattr(module, 'SHIPPED_FOLDER', str(folder))
        monkeypatch.chdir(tmp_path / 'my/runs')
        return folder

    @pytest.mark.parametrize('found', ['train.yml', 'ablation/1.yml', 'ablation'])
    @pytest.mark.parametrize('prefix', ['', './', 'options/'])
    def test_found_from_any_folder(self, shipped, prefix, found):
        assert find_option_file(prefix + found) == str(shipped / found)
        if found.endswith('.yml'):
            option_file = read_option_file(prefix + found)
            assert option_file.path == str(shipped / found) and option_file.opt == {'a': 'shipped'}

    def test_a_file_at_the_path_comes_first(self, tmp_path):
        (tmp_path / 'my/runs/train.yml').write_text('a: mine\n')
        assert find_option_file('train.yml') == 'train.yml' and read_option_file('train.yml').opt == {'a': 'mine'}

    @pytest.mark.parametrize('base', ['train.yml', 'options/train.yml', 'ablation/1.yml'])
    def test_a_base_may_be_a_shipped_file(self, tmp_path, shipped, base):
        (tmp_path / 'my/own.yml').write_text(f'base: {base}\nb: 2\n')
        option_file = read_option_file('../own.yml')
        assert option_file.opt == {'a': 'shipped', 'b': 2} and option_file.files[-1] == str(shipped / 'train.yml')
        (tmp_path / 'my/train.yml').write_text('a: mine\n')  # a file next to it comes first
        if base == 'train.yml':
            assert read_option_file('../own.yml').opt == {'a': 'mine', 'b': 2}

    @pytest.mark.parametrize('name', ['../secret.yml', 'mine/train.yml', '../shipped/none.yml', '/train.yml'])
    def test_nothing_else_is_found(self, name):
        with pytest.raises(InputError, match='does not exist'):
            find_option_file(name)

    def test_nearest_names_of_both_places(self, tmp_path, shipped):
        (tmp_path / 'my/runs/trian.yml').write_text('a: 1\n')
        with pytest.raises(InputError) as caught:
            find_option_file('tran.yml')
        assert str(caught.value).endswith(f'nor in {shipped}; did you mean trian.yml or {shipped}/train.yml?')


class TestForce:
    @pytest.fixture
    def option_file(self, write):
        return read_option_file(write('a: 1\ntrain:\n  lr: 1\n  betas: [1, 2]\ndatasets:\n  test_1: {n: 1}\n'))

    @pytest.mark.parametrize(
        'entry, value',
        [
            *(('a=1e-4', 1e-4), ('a=-1', -1), ('a=!!float 3', 3.0), ('a= 7 ', 7)),
            *(('a=', None), ('a=~', None), ('a=null', None), ('a=true', True)),
            *(('a=[1e-3, b]', [1e-3, 'b']), ('a={x: 1}', {'x': 1}), ('a=x=y=z', 'x=y=z'), ("a='1'", '1')),
            ('a=__import__("os").getcwd()', '__import__("os").getcwd()'),
        ],
    )
    def test_values_are_yaml(self, option_file, entry, value):
        force_options(option_file, [entry])
        found = option_file.opt['a']
        assert found == value and isinstance(found, type(value))

    def test_nested_keys_and_their_place(self, option_file):
        force_options(option_file, ['train:lr=2', 'datasets:test_1=~'])
        assert option_file.opt['train']['lr'] == 2 and option_file.opt['datasets']['test_1'] is None
        assert option_file.where('train', 'lr').endswith('x.yml, --force_yml: train:lr')
        force_options(option_file, ['val:metrics:psnr:type=p', 'val:metrics:psnr:border=4'])
        assert option_file.opt['val'] == {'metrics': {'psnr': {'type': 'p', 'border': 4}}}
        assert option_file.where('val').endswith('x.yml, --force_yml: val')
        assert option_file.where('train', 'betas').endswith('line 4: train:betas')

    @pytest.mark.parametrize(
        'entry, reason',
        [
            ('datasets:tset_1=~', 'datasets:tset_1 is not in .*x.yml; did you mean test_1'),
            ('base=other.yml', 'the base is merged before'),
            ('train:lr:x=1', 'train:lr in .*x.yml is a value'),
            *((entry, 'is not of the form') for entry in ('train:lr', '=1', 'train:=1')),
            *((entry, 'is not YAML') for entry in ('a=[1', 'a=[].append(1)')),
            ('a={b: 1, b: 2}', 'given a second time'),
            ('a=!!python/name:os.system', 'is not allowed'),
        ],
    )
    def test_refused_entries(self, option_file, entry, reason):
        with pytest.raises(InputError, match=reason):
            force_options(option_file, [entry])


def test_effective_options_are_an_option_file_again(write):
    text = 'name: ü\nscale: 2\nlr: 1e-7\nnone: ~\nword: "yes"\nmaybe: "1e-3"\n'
    text += 'datasets: {val: {name: a}}\npath: {b: c}\n'
    opt = read_option_file(write(text)).opt
    expected = read_option_file(write(dump_yaml(opt))).opt
    assert expected == opt and isinstance(expected['lr'], float) and expected['maybe'] == '1e-3'
    opt.update(rank=0, dist=False, is_train=True)
    opt['path'].update(models='m', log='l')
    opt['datasets'] |= {'val': {'name': 'a', 'phase': 'val', 'scale': 2}, 'val_2': None}
    assert read_option_file(write(dump_yaml(opt))).opt == expected


class TestBase:
    """Option files that contain only what differs from their base."""

    @pytest.fixture
    def files(self, tmp_path):
        """Write options/name.yml for each name=text, and options/table/derived.yml, whose path is returned."""
        (tmp_path / 'options/table').mkdir(parents=True)

        def files(derived, base=BASE, **others):
            for name, text in {'table/derived': derived, 'base': base, **others}.items():
                (tmp_path / 'options' / f'{name}.yml').write_text(text)
            return str(tmp_path / 'options/table/derived.yml')

        return files

    def test_mappings_merge_and_anything_else_is_replaced(self, files):
        train = 'train: {optim_g: {lr: 1e-3}, milestones: [3], more: {a: 1}}'
        text = f'base: ../base.yml\nname: derived\ndatasets: {{train: {{gt_size: 96}}, val: ~}}\n{train}\n'
        opt = read_option_file(files(text)).opt
        assert list(opt) == ['name', 'scale', 'datasets', 'train']  # the order of the base, without the key itself
        assert opt['name'] == 'derived' and opt['scale'] == 4
        assert opt['datasets'] == {'train': {'gt_size': 96, 'dataroot': 'a'}, 'val': None}
        optimizer = {'type': 'Adan', 'lr': 1e-3, 'betas': [0.98, 0.92, 0.99]}
        assert opt['train'] == {'optim_g': optimizer, 'milestones': [3], 'more': {'a': 1}}

    @pytest.mark.parametrize(
        'block, expected',
        [
            ('{type: Adam, lr: 1}', {'type': 'Adam', 'lr': 1}),
            ('{type: Adan, lr: 1}', {'type': 'Adan', 'lr': 1, 'betas': [0.98, 0.92, 0.99]}),
            *(('~', None), ('3', 3)),
        ],
    )
    def test_a_block_of_another_type_replaces_that_of_the_base(self, files, block, expected):
        opt = read_option_file(files(f'base: ../base.yml\ntrain:\n  optim_g: {block}\n')).opt
        assert opt['train']['optim_g'] == expected and opt['train']['milestones'] == [1, 2]

    def test_a_block_over_null_and_over_one_without_type(self, files):
        path = files('base: ../base.yml\na: {x: 1}\nb: {type: Adam}\n', base='a: ~\nb: {lr: 1}\n')
        assert read_option_file(path).opt == {'a': {'x': 1}, 'b': {'lr': 1, 'type': 'Adam'}}

    def test_chain_of_bases(self, files):
        base, middle = 'a: 1\nb: 1\nc: 1\n', 'base: base.yml\nb: 2\nc: 2\n'
        path = files('base: ../middle.yml\nc: 3\n', base, middle=middle)
        assert read_option_file(path).opt == {'a': 1, 'b': 2, 'c': 3}

    def test_places_are_in_the_file_that_has_the_key(self, files, tmp_path):
        text = 'base: ../base.yml\ntrain:\n  optim_g: {type: SGD}\ndatasets:\n  train:\n    gt_size: 7\n'
        option_file = read_option_file(files(text))
        base, derived = f'{tmp_path}/options/base.yml', f'{tmp_path}/options/table/derived.yml'
        assert option_file.where('scale') == f'{base}, line 2: scale'
        assert option_file.where('datasets', 'train', 'dataroot') == f'{base}, line 4: datasets:train:dataroot'
        assert option_file.where('datasets', 'train', 'gt_size') == f'{derived}, line 6: datasets:train:gt_size'
        # The lr of the base is replaced, so it is missing in the block of the derived file.
        assert option_file.where('train', 'optim_g', 'lr') == f'{derived}, line 3: train:optim_g:lr'
        force_options(option_file, ['scale=3'])
        assert option_file.where('scale') == f'{derived}, --force_yml: scale'

    @pytest.mark.parametrize(
        'text, reason',
        [
            ('base: ../bsae.yml\n', r'derived\.yml, line 1: base is \.\./bsae\.yml, but .*ns/bsae\.yml is not a file'),
            ('base: ../bsae.yml\n', r'and no shipped file has that name; did you mean .*options/base\.yml'),
            ('base: nowhere/at/all\n', r'base is nowhere/at/all, but .*; the path is relative to the file'),
            # ablation is a folder among the shipped files
            *((f'base: {name}\n', f'base is {name}, but .* is not a file') for name in ('..', 'ablation')),
            *((f'base: {value}\n', r'line 1: base is .*, but must be the path') for value in ('~', '[a]')),
            ('base: derived.yml\n', r'base is derived\.yml, which is based on this file'),
            ('base: ../cycle.yml\n', r'cycle\.yml, line 2: base is table/derived\.yml, which is based on this file'),
            ('base: ../empty.yml\n', r'empty\.yml is empty'),
            ('base: ../wrong.yml\n', r'options/wrong\.yml, line 2: a is given a second time'),
        ],
    )
    def test_refused_bases(self, files, text, reason):
        path = files(text, cycle='a: 1\nbase: table/derived.yml\n', empty='', wrong='a: 1\na: 2\n')
        with pytest.raises(InputError, match=reason) as caught:
            read_option_file(path)
        assert '\n' not in str(caught.value)

    def test_base_behind_a_symbolic_link(self, files, tmp_path):
        files('base: ../base.yml\n', base='a: 1\n')
        (tmp_path / 'link').symlink_to(tmp_path / 'options/table')
        assert read_option_file(str(tmp_path / 'link/derived.yml')).opt == {'a': 1}

    @pytest.fixture
    def derive(self, files, tmp_path):
        """Write the small training file, with its images, and a file that is based on it."""
        write_pairs(tmp_path)
        return lambda text: files(f'base: ../base.yml\n{text}', base=TRAIN.replace('ROOT', str(tmp_path)))

    @pytest.mark.parametrize(
        'text, reason',
        [
            ('train:\n  optim_g:\n    lrr: 1\n', r'derived\.yml, line 4: train:optim_g:lrr is not an argument of Adam'),
            ('network_g:\n  upscale: 4\n', r'derived\.yml, line 3: network_g:upscale is 4, but scale is 2'),
            ('scale: 4\n', r'base\.yml, line 15: network_g:upscale is 2, but scale is 4'),
            ('train:\n  total_iter: 10\n  warmup_iter: 10\n', r'derived\.yml, line 4: train:warmup_iter is 10'),
            ('bsae: x\n', r'derived\.yml, line 2: bsae is not known; did you mean base'),
            ('train:\n  optim_g: {type: SGD}\n', r'derived\.yml, line 3: train:optim_g has no lr'),
        ],
    )
    def test_errors_name_the_file_that_has_the_key(self, derive, tmp_path, text, reason):
        with pytest.raises(InputError, match=reason):
            parse_run(tmp_path, True, derive(text))

    def test_forced_keys_may_be_in_the_base(self, derive, tmp_path):
        forced = ['--force_yml', 'train:optim_g:lr=1e-7', 'datasets:val=~']
        opt = parse_run(tmp_path, True, derive('name: derived\n'), *forced)
        assert opt['train']['optim_g']['lr'] == 1e-7 and list(opt['datasets']) == ['train'] and opt['name'] == 'derived'
        with pytest.raises(InputError, match=r'datasets:vla is not in .*derived\.yml or its base'):
            parse_run(tmp_path, True, derive(''), '--force_yml', 'datasets:vla=~')

    def test_effective_options_are_merged_and_start_the_same_run(self, derive, tmp_path):
        path = derive('train:\n  optim_g: {type: SGD, lr: 0.1}\n')
        opt = parse_run(tmp_path, True, path, '--force_yml', 'train:total_iter=200')
        again = parse_run(tmp_path, True, write_options(tmp_path / 'again.yml', opt.effective))
        assert 'base' not in opt and dump_yaml(again) == opt.effective and again == opt

    def test_a_dataset_that_is_null_is_left_out(self, derive, tmp_path, monkeypatch):
        path = derive('datasets:\n  val: ~\n  val_2: ~\n')
        monkeypatch.setattr(sys, 'argv', ['train', '-opt', path])
        run = Run()
        opt, _ = run.parse_options(str(tmp_path))
        run.copy_opt_file(path, str(tmp_path))  # merged, but not checked
        assert list(opt['datasets']) == ['train'] == list(read_option_file(tmp_path / 'derived.yml').opt['datasets'])

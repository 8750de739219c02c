from pathlib import Path

import pytest

from lkdn_basicsr.options import option_file as option_file_module
from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.diff import NOT_SET, changes, differences_from_shipped
from lkdn_basicsr.options.option_file import SHIPPED_FOLDER, force_options, read_option_file
from tests.support.option_files import train_options, write_options


def test_changes():
    before = {'a': 1, 'b': {'c': 1, 'd': 2}, 'e': {}}
    after = {'b': {'c': 1, 'd': 3, 'f': [4]}, 'a': 1}
    assert list(changes(before, after)) == [('b:d', 2, 3), ('e', {}, NOT_SET), ('b:f', NOT_SET, [4])]
    assert list(changes(before, before)) == []


def test_differences_from_the_shipped_file_of_the_same_name(tmp_path, monkeypatch):
    opt = train_options(tmp_path)
    option_file = read_option_file(write_options(tmp_path / 'train.yml', opt))
    check_schema(option_file, True)
    assert differences_from_shipped(option_file, True) == []  # no such file is shipped
    (tmp_path / 'shipped').mkdir()
    monkeypatch.setattr(option_file_module, 'SHIPPED_FOLDER', str(tmp_path / 'shipped'))
    opt['train']['optim_g']['lr'] = 1e-3
    del opt['manual_seed'], opt['logger']['print_freq']
    write_options(tmp_path / 'shipped/train.yml', opt)
    force_options(option_file, ['train:total_iter=200'])
    assert differences_from_shipped(option_file, True) == [
        'manual_seed: 3 (shipped: null)',
        'train:optim_g:lr: 0.0002 (shipped: 0.001)',
        'train:total_iter: 200 (shipped: 100)',
        'logger:print_freq: 10 (shipped: 100)',
    ]


@pytest.mark.parametrize('path', sorted(Path(SHIPPED_FOLDER).glob('*.yml')), ids=lambda path: path.stem)
def test_shipped_files_do_not_differ_from_themselves(path):
    option_file = read_option_file(path)
    is_train = 'train' in option_file.opt
    check_schema(option_file, is_train)
    assert differences_from_shipped(option_file, is_train) == []

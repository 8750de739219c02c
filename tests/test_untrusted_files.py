"""Files are data: code in a file of any kind is never executed, but reported or treated as text."""

import json
import os
import pickle
import zlib

import pytest
import torch
import yaml
from basicsr.utils.registry import MODEL_REGISTRY

from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_folder
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training.model import model_class
from tests.support.runs import reset_log, run, write

CODE = "__import__('os').mkdir('PLANTED')"


class Planted:
    """A pickle of this creates a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ('PLANTED',)


@pytest.fixture(autouse=True)
def nothing_planted(home, monkeypatch):
    # With it, torch.load executes code unless weights_only is passed.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    yield
    assert not (home / 'PLANTED').exists()


def change(file, **settings):
    """Write ``wrong.yml``, a copy of ``file`` with the options ``a__b`` changed."""
    options = yaml.safe_load(open(file).read())
    for keys, value in settings.items():
        *parents, last = keys.split('__')
        block = options
        for key in parents:
            block = block[key]
        block[last] = value
    write('wrong.yml', options)


def test_planted_code_would_run(home):
    pickle.loads(pickle.dumps(Planted()))
    os.rmdir('PLANTED')


@pytest.mark.parametrize(
    'content',
    [
        lambda path: torch.save({'params': Planted()}, path),
        lambda path: torch.save({'params': {'w': torch.zeros(2)}, 'more': Planted()}, path),
        lambda path: path.write_bytes(pickle.dumps(Planted())),
        lambda path: torch.save(Planted(), path, _use_new_zipfile_serialization=False),
    ],
)
@pytest.mark.parametrize('model', ['SRModel', 'ReparamSRModel'])
@pytest.mark.parametrize('task, name', [('train', 'net_g_5.pth'), ('test', 'net_g_latest_fused.pth')])
def test_checkpoint(home, monkeypatch, task, name, model, content):
    content(home / name)
    data = {'SRModel': 'PairedImageDataset', 'ReparamSRModel': 'PairedCropDataset'}[model]
    phases = {f'datasets__{phase}__type': data for phase in (['train', 'val'] if task == 'train' else ['test_1'])}
    change(f'{task}.yml', path__pretrain_network_g=name, model_type=model, **phases)
    assert f'{name} contains more than tensors' in run(monkeypatch, task, '-opt', 'wrong.yml')


@pytest.mark.parametrize('model', ['SRModel', 'ReparamSRModel'])
def test_checkpoint_that_a_model_class_loads(home, model):
    torch.save({'params': Planted()}, 'net.pth')
    loader = object.__new__(model_class(MODEL_REGISTRY.get(model), run=None))
    loader.is_train = False
    with pytest.raises(InputError, match='net.pth contains more than tensors'):
        loader.load_network(torch.nn.Conv2d(1, 1, 1), 'net.pth')


def test_training_state(home, monkeypatch):
    torch.save({'iter': 4, 'epoch': 0, 'optimizers': [Planted()], 'schedulers': []}, 'x.state')
    change('train.yml', path__resume_state='x.state')
    assert 'x.state contains more than tensors' in run(monkeypatch, 'train', '-opt', 'wrong.yml')


def test_training_state_that_is_found(home, monkeypatch):
    assert run(monkeypatch, 'train', '-opt', 'train.yml') is None
    reset_log()
    for path in (home / 'experiments/run/training_states').iterdir():
        torch.save({'iter': 4, 'epoch': 0, 'optimizers': [Planted()], 'schedulers': []}, path)
    status = run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume')
    assert 'no checkpoint' in status and '7.state contains more than tensors' in status


@pytest.mark.parametrize('checksum', [True, False])
def test_networks_that_a_resume_loads(home, monkeypatch, checksum):
    assert run(monkeypatch, 'train', '-opt', 'train.yml') is None
    reset_log()
    (home / 'experiments/run/training_states/7.state').unlink()
    torch.save({'params': Planted()}, 'experiments/run/models/net_g_4.pth')
    if not checksum:  # as in a state that BasicSR has written
        state = torch.load('experiments/run/training_states/4.state', weights_only=True)
        del state['files']
        torch.save(state, 'experiments/run/training_states/4.state')
    status = run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume')
    assert 'net_g_4.pth is damaged' in status if checksum else 'net_g_4.pth contains more than tensors' in status


@pytest.mark.parametrize(
    'line',
    [
        'name: !!python/object/apply:os.mkdir [PLANTED]',
        'name: !!python/object/new:os.mkdir [PLANTED]',
        'name: &x !!python/object/apply:builtins.eval ["' + CODE + '"]',
    ],
)
def test_option_file(home, monkeypatch, line):
    text = open('train.yml').read().replace('name: run', line, 1)
    (home / 'wrong.yml').write_text(text)
    assert 'is not allowed' in run(monkeypatch, 'train', '-opt', 'wrong.yml')


@pytest.mark.parametrize(
    'entry, message',
    [
        (f'train:total_iter={CODE}', 'total_iter is "__import__'),
        (f'train:optim_g:betas=[{CODE}, 1, 1]', 'betas is ["__import__'),
        (f'train:optim_g:lr=!!float {CODE}', 'could not convert string to float'),
        ('manual_seed=!!python/object/apply:os.mkdir [PLANTED]', 'tag !!python/object/apply:os.mkdir is not allowed'),
        (f'manual_seed"]={CODE};opt["name', 'is not in train.yml'),
    ],
)
def test_force_yml(monkeypatch, entry, message):
    assert message in run(monkeypatch, 'train', '-opt', 'train.yml', '--force_yml', entry)


def test_option_is_text(home, monkeypatch):
    change('train.yml', name="__import__('os').mkdir('PLANTED')", train__total_iter=1)
    assert run(monkeypatch, 'train', '-opt', 'wrong.yml') is None
    assert (home / 'experiments' / CODE / 'models/net_g_latest.pth').exists()


@pytest.fixture
def stores(home):
    """Option files that read stores of both formats."""
    prepare_folder('raw', 'train/gt', options=StoreOptions(scales=(2,), workers=1))
    png = StoreOptions(scales=(2,), workers=1, format='png', crop_size=32, step=32)
    prepare_folder('png', 'train/gt', options=png)
    return {name: sorted(path for path in (home / name).iterdir() if path.is_dir()) for name in ('raw', 'png')}


def read_stores(kind, stores):
    hr, lr = stores[kind]
    dataset = yaml.safe_load(open('train.yml').read())['datasets']['train']
    dataset.update(
        dataroot_gt=str(hr),
        dataroot_lq=str(lr),
        io_backend={'type': 'raw' if kind == 'raw' else 'lmdb'},
        type='PairedCropDataset' if kind == 'raw' else 'PairedImageDataset',
    )
    change(
        'train.yml',
        datasets__train=dataset,
        train__total_iter=1,
        model_type='SRModel' if kind == 'png' else 'ReparamSRModel',
        datasets__val__type='PairedImageDataset' if kind == 'png' else 'PairedCropDataset',
    )


@pytest.mark.parametrize(
    'content', [pickle.dumps(Planted()), CODE.encode(), b'!!python/object/apply:os.mkdir [PLANTED]']
)
def test_index_of_a_store(stores, monkeypatch, content):
    (stores['raw'][0] / 'index.json').write_bytes(content)
    read_stores('raw', stores)
    assert 'index.json is damaged' in run(monkeypatch, 'train', '-opt', 'wrong.yml')


def test_name_in_a_store_is_text(stores, monkeypatch):
    for store in stores['raw']:
        index = json.loads((store / 'index.json').read_text())
        del index['checksum']
        index['names'][0] = CODE
        text = json.dumps(index, sort_keys=True, ensure_ascii=False)
        (store / 'index.json').write_text(json.dumps({**index, 'checksum': zlib.crc32(text.encode())}))
    read_stores('raw', stores)
    assert run(monkeypatch, 'train', '-opt', 'wrong.yml') is None


def test_meta_file_of_an_lmdb(stores, monkeypatch):
    read_stores('png', stores)
    assert run(monkeypatch, 'train', '-opt', 'wrong.yml') is None
    reset_log()
    for store in stores['png']:
        path = store / 'meta_info.txt'
        path.write_text(''.join(f'{i}{CODE}.png ({CODE},32,3) {CODE}\n' for i in range(5)))
    with pytest.raises(TypeError, match='bytes-like'):  # BasicSR decodes an image that is not in the LMDB
        run(monkeypatch, 'train', '-opt', 'wrong.yml')


def test_meta_info_file(home, monkeypatch):
    (home / 'list.txt').write_text(f'{CODE}.png ({CODE})\n00.png (32,32,3)\n')
    options = yaml.safe_load(open('train.yml').read())['datasets']['train']
    change('train.yml', datasets__train={**options, 'meta_info_file': 'list.txt'})
    assert f'train/gt/{CODE}.png' in run(monkeypatch, 'train', '-opt', 'wrong.yml')

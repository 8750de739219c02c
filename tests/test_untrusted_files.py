"""Files are data: code in a file of any kind is never executed, but reported or treated as text."""

import json
import os
import pickle
import zlib

import pytest
import torch
from basicsr.utils.registry import MODEL_REGISTRY

from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_folder
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.training.model import model_class
from tests.support.runs import change, reset_log, run

CODE = "__import__('os').mkdir('PLANTED')"
MODELS = {'SRModel': 'PairedImageDataset', 'ReparamSRModel': 'PairedCropDataset'}


class Planted:
    """A pickle of this creates a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ('PLANTED',)


STATE = {'iter': 4, 'epoch': 0, 'optimizers': [Planted()], 'schedulers': []}


@pytest.fixture(autouse=True)
def nothing_planted(home, monkeypatch):
    # With it, torch.load executes code unless weights_only is passed.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    yield
    assert not (home / 'PLANTED').exists()


@pytest.fixture
def train(monkeypatch):
    """Run ``train.yml`` with flags."""
    return lambda *flags: run(monkeypatch, 'train', '-opt', 'train.yml', *flags)


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
@pytest.mark.parametrize('model', MODELS)
@pytest.mark.parametrize('task, name', [('train', 'net_g_5.pth'), ('test', 'net_g_latest_fused.pth')])
def test_checkpoint(home, monkeypatch, task, name, model, content):
    content(home / name)
    phases = ['train', 'val'] if task == 'train' else ['test_1']
    settings = [f'path:pretrain_network_g={name}', f'model_type={model}']
    settings += [f'datasets:{phase}:type={MODELS[model]}' for phase in phases]
    status = run(monkeypatch, task, '-opt', f'{task}.yml', '--force_yml', *settings)
    assert f'{name} contains more than tensors' in status


@pytest.mark.parametrize('model', MODELS)
def test_checkpoint_that_a_model_class_loads(home, model):
    torch.save({'params': Planted()}, 'net.pth')
    loader = object.__new__(model_class(MODEL_REGISTRY.get(model), run=None))
    loader.is_train = False
    with pytest.raises(InputError, match='net.pth contains more than tensors'):
        loader.load_network(torch.nn.Conv2d(1, 1, 1), 'net.pth')


def test_training_state(home, train):
    torch.save(STATE, 'x.state')
    assert 'x.state contains more than tensors' in train('--force_yml', 'path:resume_state=x.state')
    reset_log()
    assert train() is None
    reset_log()
    for path in (home / 'experiments/run/training_states').iterdir():
        torch.save(STATE, path)
    status = train('--auto_resume')
    assert 'no checkpoint' in status and '7.state contains more than tensors' in status


@pytest.mark.parametrize('checksum', [True, False])
def test_networks_that_a_resume_loads(home, train, checksum):
    assert train() is None
    reset_log()
    (home / 'experiments/run/training_states/7.state').unlink()
    torch.save({'params': Planted()}, 'experiments/run/models/net_g_4.pth')
    if not checksum:  # as in a state that BasicSR has written
        state = torch.load('experiments/run/training_states/4.state', weights_only=True)
        del state['files']
        torch.save(state, 'experiments/run/training_states/4.state')
    assert f'net_g_4.pth {"is damaged" if checksum else "contains more than tensors"}' in train('--auto_resume')


@pytest.mark.parametrize(
    'value',
    [
        '!!python/object/apply:os.mkdir [PLANTED]',
        '!!python/object/new:os.mkdir [PLANTED]',
        f'&x !!python/object/apply:builtins.eval ["{CODE}"]',
    ],
)
def test_option_file(home, train, value):
    text = (home / 'train.yml').read_text()
    (home / 'train.yml').write_text(text.replace('name: run', f'name: {value}', 1))
    assert 'is not allowed' in train()


@pytest.mark.parametrize(
    'entry, message',
    [
        (f'train:total_iter={CODE}', 'total_iter is "__import__'),
        (f'train:optim_g:betas=[{CODE}, 1, 1]', 'betas is ["__import__'),
        (f'train:optim_g:lr=!!float {CODE}', 'does not fit its tag !!float'),
        ('manual_seed=!!python/object/apply:os.mkdir [PLANTED]', 'tag !!python/object/apply:os.mkdir is not allowed'),
        (f'manual_seed"]={CODE};opt["name', 'is not known'),
    ],
)
def test_force_yml(train, entry, message):
    assert message in train('--force_yml', entry)


def test_option_is_text(home, train):
    change(home, name=CODE, train__total_iter=1)
    assert train() is None
    assert (home / 'experiments' / CODE / 'models/net_g_latest.pth').exists()


def prepare(home, **options):
    """Write ``stores`` from the images of the training, and let it read them, for one iteration; return the stores."""
    prepare_folder('stores', 'train/gt', options=StoreOptions(scales=(2,), workers=1, **options))
    hr, lr = sorted(path for path in (home / 'stores').iterdir() if path.is_dir())
    change(home, datasets__train__dataroot_gt=str(hr), datasets__train__dataroot_lq=str(lr), train__total_iter=1)
    return hr, lr


@pytest.mark.parametrize(
    'content', [pickle.dumps(Planted()), CODE.encode(), b'!!python/object/apply:os.mkdir [PLANTED]']
)
def test_index_of_a_store(home, train, content):
    hr, _ = prepare(home)
    change(home, datasets__train__io_backend=dict(type='raw'))
    (hr / 'index.json').write_bytes(content)
    assert 'index.json is damaged' in train()


def test_name_in_a_store_is_text(home, train):
    for store in prepare(home):
        index = json.loads((store / 'index.json').read_text())
        del index['checksum']
        index['names'][0] = CODE
        text = json.dumps(index, sort_keys=True, ensure_ascii=False)
        (store / 'index.json').write_text(json.dumps({**index, 'checksum': zlib.crc32(text.encode())}))
    change(home, datasets__train__io_backend=dict(type='raw'))
    assert train() is None


def test_meta_file_of_an_lmdb(home, train):
    stores = prepare(home, format='png', crop_size=32, step=32)
    change(home, model_type='SRModel', datasets__train__io_backend=dict(type='lmdb'))
    change(home, **{f'datasets__{phase}__type': 'PairedImageDataset' for phase in ('train', 'val')})
    assert train() is None
    reset_log()
    for store in stores:
        (store / 'meta_info.txt').write_text(''.join(f'{i}{CODE}.png ({CODE},32,3) {CODE}\n' for i in range(5)))
    assert 'does not contain' in train()


def test_meta_info_file(home, train):
    (home / 'list.txt').write_text(f'{CODE}.png ({CODE})\n00.png (32,32,3)\n')
    change(home, datasets__train__meta_info_file='list.txt')
    assert f'train/gt/{CODE}.png' in train()

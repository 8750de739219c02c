"""Files are data: code planted in each kind of them is refused, or taken as the text that it is."""

import json
import os
import pickle
import zlib
from contextlib import suppress

import pytest
import torch
import yaml
from basicsr.utils.registry import MODEL_REGISTRY

from lkdn_basicsr.data.prepare.stores import StoreOptions, prepare_folder
from lkdn_basicsr.errors import InputError
from tests.training.test_run import forget_the_log, home, run, write  # noqa: F401

CODE = "__import__('os').mkdir('PLANTED')"


class Planted:
    """A pickle of this makes a folder when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ('PLANTED',)


@pytest.fixture(autouse=True)
def nothing_planted(home, monkeypatch):  # noqa: F811
    # What makes torch.load, where it is not told otherwise, run what a file brings.
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    yield
    assert not (home / 'PLANTED').exists()


def change(file, **settings):
    """Writes ``wrong.yml``, which is ``file`` with keys ``a__b`` set."""
    options = yaml.safe_load(open(file).read())
    for keys, value in settings.items():
        *parents, last = keys.split('__')
        block = options
        for key in parents:
            block = block[key]
        block[last] = value
    write('wrong.yml', options)


def test_what_is_planted_here_would_run(home):  # noqa: F811
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
def test_checkpoint(home, monkeypatch, task, name, model, content):  # noqa: F811
    content(home / name)
    data = {'SRModel': 'PairedImageDataset', 'ReparamSRModel': 'PairedCropDataset'}[model]
    phases = {f'datasets__{phase}__type': data for phase in (['train', 'val'] if task == 'train' else ['test_1'])}
    change(f'{task}.yml', path__pretrain_network_g=name, model_type=model, **phases)
    assert name in run(monkeypatch, task, '-opt', 'wrong.yml')


@pytest.mark.parametrize('model', ['SRModel', 'ReparamSRModel'])
def test_checkpoint_that_a_model_class_loads(home, model):  # noqa: F811
    torch.save({'params': Planted()}, 'net.pth')
    loader = object.__new__(MODEL_REGISTRY.get(model))
    loader.is_train = False
    with pytest.raises(InputError, match='net.pth holds more than tensors'):
        loader.load_network(torch.nn.Conv2d(1, 1, 1), 'net.pth')


def test_training_state(home, monkeypatch):  # noqa: F811
    torch.save({'iter': 4, 'epoch': 0, 'optimizers': [Planted()], 'schedulers': []}, 'x.state')
    change('train.yml', path__resume_state='x.state')
    assert 'x.state' in run(monkeypatch, 'train', '-opt', 'wrong.yml')


def test_training_state_that_is_found(home, monkeypatch):  # noqa: F811
    run(monkeypatch, 'train', '-opt', 'train.yml')
    forget_the_log()
    for path in (home / 'experiments/run/training_states').iterdir():
        torch.save({'iter': 4, 'epoch': 0, 'optimizers': [Planted()], 'schedulers': []}, path)
    with suppress(Exception):  # whether it is passed over or ends the run is told elsewhere
        run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume')


def test_networks_that_a_resume_loads(home, monkeypatch):  # noqa: F811
    run(monkeypatch, 'train', '-opt', 'train.yml')
    forget_the_log()
    torch.save({'params': Planted()}, 'experiments/run/models/net_g_4.pth')
    with suppress(Exception):
        run(monkeypatch, 'train', '-opt', 'train.yml', '--auto_resume')


@pytest.mark.parametrize(
    'line',
    [
        'name: !!python/object/apply:os.mkdir [PLANTED]',
        'name: !!python/object/new:os.mkdir [PLANTED]',
        'name: &x !!python/object/apply:builtins.eval ["' + CODE + '"]',
    ],
)
def test_option_file(home, monkeypatch, line):  # noqa: F811
    text = open('train.yml').read().replace('name: run', line, 1)
    (home / 'wrong.yml').write_text(text)
    assert 'is not allowed' in run(monkeypatch, 'train', '-opt', 'wrong.yml')


@pytest.mark.parametrize(
    'entry',
    [
        f'train:total_iter={CODE}',
        f'train:optim_g:betas=[{CODE}, 1, 1]',
        f'train:optim_g:lr=!!float {CODE}',
        'manual_seed=!!python/object/apply:os.mkdir [PLANTED]',
        f'manual_seed"]={CODE};opt["name',
    ],
)
def test_force_yml(monkeypatch, entry):
    assert isinstance(run(monkeypatch, 'train', '-opt', 'train.yml', '--force_yml', entry), str)


def test_text_of_options_stays_text(home, monkeypatch):  # noqa: F811
    change('train.yml', name="__import__('os').mkdir('PLANTED')", train__total_iter=1)
    assert run(monkeypatch, 'train', '-opt', 'wrong.yml') is None
    assert (home / 'experiments' / CODE / 'models/net_g_latest.pth').exists()


@pytest.fixture
def stores(home):  # noqa: F811
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
    assert 'index.json' in run(monkeypatch, 'train', '-opt', 'wrong.yml')


def test_names_in_a_store_stay_names(stores, monkeypatch):
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
    forget_the_log()
    for store in stores['png']:
        path = store / 'meta_info.txt'
        first, *rest = path.read_text().splitlines()
        path.write_text('\n'.join([f'{CODE}.png ({CODE},32,3) {CODE}', *rest]))
    with suppress(Exception):  # the name of a picture that the LMDB does not have
        run(monkeypatch, 'train', '-opt', 'wrong.yml')


def test_list_of_pictures(home, monkeypatch):  # noqa: F811
    (home / 'list.txt').write_text(f'{CODE}.png ({CODE})\n00.png (32,32,3)\n')
    options = yaml.safe_load(open('train.yml').read())['datasets']['train']
    change('train.yml', datasets__train={**options, 'meta_info_file': 'list.txt'})
    assert isinstance(run(monkeypatch, 'train', '-opt', 'wrong.yml'), str)

"""Networks of every kind, loaded from their files, equal the ones that were saved."""

import warnings

import pytest
import torch
import yaml
from basicsr.archs.ecbsr_arch import ECBSR
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from basicsr.archs.swinir_arch import SwinIR
from basicsr.utils.registry import ARCH_REGISTRY
from safetensors.torch import save_file
from spandrel.architectures.OmniSR import OmniSR
from spandrel.architectures.PLKSR import PLKSR
from spandrel.architectures.SAFMN import SAFMN
from spandrel.architectures.SPAN import SPAN
from torch import nn
from torch.nn import functional as F

from lkdn_basicsr import reparam
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate.loading.load import load
from tests.support.networks import randomize, save_checkpoint, small_lkdn

pytestmark = pytest.mark.filterwarnings('ignore:torch.meshgrid')
SWINIR = {'window_size': 8, 'img_size': 16, 'depths': [2, 2], 'embed_dim': 8, 'num_heads': [2, 2], 'mlp_ratio': 2}
EDSR_X2 = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2, 'upscale': 2}


def outputs(network, window=1, size=(20, 22)):
    """Return the output for an image whose sides are multiples of no window, padded by reflection if necessary."""
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = network(F.pad(x, (0, -size[1] % window, 0, -size[0] % window), 'reflect'))
    scale = out.shape[-1] // (size[1] + -size[1] % window)
    return out[..., : size[0] * scale, : size[1] * scale]


def class_name(loaded):
    return type(getattr(loaded.network, 'core', loaded.network)).__name__


NETWORKS = {
    **{f'MSRResNet x{s}': lambda s=s: MSRResNet(3, 3, 8, 2, s) for s in (2, 3, 4)},
    **{f'EDSR x{s}': lambda s=s: EDSR(3, 3, 8, 2, s) for s in (2, 3, 4, 8)},
    'EDSR large': lambda: EDSR(3, 3, 256, 1, 2, res_scale=0.1),
    'RCAN x3': lambda: RCAN(3, 3, 16, 2, 3, 4, 3),
    'RCAN x4': lambda: RCAN(3, 3, 8, 1, 1, 2, 4),
    'RRDBNet x4': lambda: RRDBNet(3, 3, 4, 8, 2, 4),
    'RRDBNet x2': lambda: RRDBNet(3, 3, 2, 8, 1, 4),
    **{f'SRVGGNetCompact x{s}': lambda s=s: SRVGGNetCompact(3, 3, 8, 2, s) for s in (2, 3)},
    'SwinIR light': lambda: SwinIR(upscale=3, upsampler='pixelshuffledirect', **SWINIR),
    'SwinIR classical': lambda: SwinIR(upscale=4, upsampler='pixelshuffle', **SWINIR),
    'SwinIR real world': lambda: SwinIR(upscale=4, upsampler='nearest+conv', resi_connection='3conv', **SWINIR),
    'SPAN': lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4),
    'SAFMN': lambda: SAFMN(dim=8, n_blocks=1, upscaling_factor=2),
    'OmniSR': lambda: OmniSR(num_feat=8, block_num=1, up_scale=4, res_num=1, bias=True, pe=True, window_size=8),
    'PLKSR': lambda: PLKSR(dim=16, n_blocks=1, upscaling_factor=4),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_are_detected(name, tmp_path, capfd):
    network = randomize(NETWORKS[name]())
    window = {'SwinIR light': 8, 'SwinIR classical': 8, 'SwinIR real world': 8, 'SAFMN': 8, 'RRDBNet x2': 2}.get(
        name, 1
    )
    capfd.readouterr()
    loaded = load(save_checkpoint(network, tmp_path / 'a.pth'))
    assert capfd.readouterr() == ('', '')
    found, expected = outputs(loaded.network), outputs(network, window)
    assert (class_name(loaded), loaded.scale) == (type(network).__name__, found.shape[-1] // 22)
    # BasicSR's have the same operations in the same order, except that spandrel clips; SPAN is fused.
    atol = 1e-6 if type(network).__module__.startswith('spandrel') else 0
    torch.testing.assert_close(found.clamp(0, 1), expected.clamp(0, 1), rtol=0, atol=atol)


def test_span_is_fused(tmp_path):
    network = randomize(NETWORKS['SPAN']())
    loaded = load(save_checkpoint(network, tmp_path / 'a.pth')).network
    count = sum(parameter.numel() for parameter in loaded.parameters())
    branches = sum(value.numel() for key, value in network.named_parameters() if '.sk.' in key or '.conv.' in key)
    assert branches > 0
    assert count == sum(value.numel() for value in network.parameters()) - branches


@pytest.mark.parametrize('key', [None, 'params', 'params_ema'])
def test_lkdn_is_fused(key, tmp_path):
    network = small_lkdn(conv='BSConvU_rep', upsampler='pixelshuffle_rep', upscale=2)
    loaded = load(save_checkpoint(network, tmp_path / 'LKDN_small.pth', key))
    assert (loaded.scale, class_name(loaded), loaded.name) == (2, 'LKDN', 'LKDN_small')
    assert not any('rep1x1' in name for name in loaded.network.state_dict())
    # float32, added in another order; the output is of magnitude 1
    torch.testing.assert_close(outputs(loaded.network), outputs(network), rtol=0, atol=1e-5)


def test_bsrn_as_its_authors_save_it(tmp_path):
    network = small_lkdn(num_feat=16, attention='esa_cca', conv='BSConvU_idt')
    weights = network.state_dict().items()
    renamed = {key.replace('upsampler.', 'upsampler.upsampleOneStep.'): value for key, value in weights}
    torch.save({'params_ema': renamed}, tmp_path / 'BSRN.pth')
    loaded = load(tmp_path / 'BSRN.pth')
    assert torch.equal(outputs(loaded.network), outputs(network))  # the shortcuts have no keys


def test_averaged_weights_are_preferred(tmp_path):
    averaged = randomize(small_lkdn(), seed=1)
    path = save_checkpoint(small_lkdn(), tmp_path / 'a.pth', params_ema=averaged.state_dict())
    assert torch.equal(outputs(load(path).network), outputs(averaged))


def test_safetensors(tmp_path):
    network = small_lkdn()
    save_file(network.state_dict(), tmp_path / 'a.safetensors')
    assert torch.equal(outputs(load(tmp_path / 'a.safetensors').network), outputs(network))
    (tmp_path / 'b.safetensors').write_bytes(b'no such thing')
    with pytest.raises(InputError, match='b.safetensors cannot be read'):
        load(tmp_path / 'b.safetensors')


def write_options(path, network_g, checkpoint=None):
    options = {'network_g': network_g} | ({'path': {'pretrain_network_g': str(checkpoint)}} if checkpoint else {})
    path.write_text(yaml.safe_dump(options))
    return str(path)


@pytest.fixture(params=['checkpoint', 'option file'])
def save_with_config(request, tmp_path):
    """Save a network and its config, in the checkpoint or in an option file, and return the file to be loaded."""

    def save(network, **config):
        path = tmp_path / 'a.pth'
        if request.param == 'checkpoint':
            return save_checkpoint(network, path, network_g=config)
        return write_options(tmp_path / 'a.yml', config, save_checkpoint(network, path))

    return save


def test_images_are_padded_to_the_window(save_with_config):
    arguments = {'upscale': 2, 'upsampler': 'pixelshuffledirect', **SWINIR}
    network = randomize(SwinIR(**arguments))
    loaded = load(save_with_config(network, type='SwinIR', **arguments))
    assert torch.equal(outputs(loaded.network), outputs(network, 8))
    assert outputs(loaded.network, size=(3, 5)).shape == (1, 3, 6, 10)  # too small to be padded by reflection


def test_lkdn_is_fused_from_its_config(save_with_config):
    arguments = {'num_feat': 8, 'num_atten': 8, 'num_block': 1, 'conv': 'BSConvU_rep'}
    path = save_with_config(small_lkdn(**arguments), type='LKDN', **arguments)
    assert not any('rep1x1' in key for key in load(path).network.state_dict())


class Talkative(nn.Module):
    """A plugin's network that prints and warns."""

    def __init__(self, width=4):
        super().__init__()
        print('conv: BSConvU')
        warnings.warn('built', stacklevel=1)
        self.conv = nn.Conv2d(3, width, 1)
        self.upsample = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        return self.upsample(self.conv(x))


def test_a_plugin_network(save_with_config, monkeypatch, capfd, recwarn):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Talkative', Talkative)
    network = randomize(Talkative(5))
    path = save_with_config(network, type='Talkative', width=5)
    capfd.readouterr()
    recwarn.clear()
    loaded = load(path)
    assert (class_name(loaded), loaded.scale) == ('Talkative', 2)
    assert torch.equal(outputs(loaded.network), outputs(network))
    assert capfd.readouterr() == ('', '') and not recwarn.list


@pytest.mark.parametrize(
    'config',
    [
        *('EDSR', {'type': ['EDSR']}, {'type': 'Unknown'}, {'type': 'EDSR', 'num_feat': 'many'}),
        {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'squeeze_factor': 0},
        {'type': 'EDSR', **EDSR_X2, 'num_feat': 16},
    ],
)
def test_an_invalid_config_in_a_checkpoint_is_ignored(config, tmp_path):
    network = randomize(EDSR(**EDSR_X2))
    loaded = load(save_checkpoint(network, tmp_path / 'a.pth', network_g=config))
    assert torch.equal(outputs(loaded.network), outputs(network))


def test_an_option_file_gives_what_weights_do_not_determine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = randomize(SRVGGNetCompact(3, 3, 8, 2, 4, act_type='relu'))
    save_checkpoint(network, tmp_path / 'a.pth')
    arguments = {'type': 'SRVGGNetCompact', 'num_feat': 8, 'num_conv': 2, 'upscale': 4}
    with pytest.raises(InputError, match=r'option file \(.yml\)'):
        load('a.pth')
    relu = load(write_options(tmp_path / 'test_relu.yml', {**arguments, 'act_type': 'relu'}, 'a.pth'))
    assert (relu.name, relu.scale) == ('test_relu', 4)
    assert torch.equal(outputs(relu.network), outputs(network))
    # The options are part of the digest: with others, the same weights give other images.
    leaky = load(write_options(tmp_path / 'test_leaky.yml', {**arguments, 'act_type': 'leakyrelu'}, 'a.pth'))
    assert leaky.digest != relu.digest
    assert not torch.equal(outputs(leaky.network), outputs(network))


def test_a_checkpoint_is_opened_by_the_option_file_of_its_run(tmp_path):
    models = tmp_path / 'EDSR_run' / 'models'
    models.mkdir(parents=True)
    network = randomize(EDSR(**EDSR_X2, res_scale=0.5))  # which weights do not determine
    path = save_checkpoint(network, models / 'net_g_5000.pth')
    detected = load(path)
    assert detected.name == 'EDSR_run'
    assert not torch.equal(outputs(detected.network), outputs(network))
    write_options(models.parent / 'EDSR_run.yml', {'type': 'EDSR', **EDSR_X2, 'res_scale': 0.5})
    (models.parent / 'broken.yml').write_text('a: [')
    described = load(path)
    assert torch.equal(outputs(described.network), outputs(network))
    assert described.digest != detected.digest
    # The config that was saved with the weights takes precedence: the option file may have changed since.
    other = {'type': 'EDSR', **EDSR_X2, 'res_scale': 0.25}
    saved = load(save_checkpoint(network, models / 'net_g_5000.pth', network_g=other))
    assert torch.equal(outputs(saved.network), outputs(load(write_options(tmp_path / 'a.yml', other, path)).network))
    assert not torch.equal(outputs(saved.network), outputs(network))


@pytest.mark.parametrize(
    'options, message',
    [
        ({'type': 'EDSSR'}, "network_g:type is 'EDSSR', which is not a known network; did you mean EDSR"),
        ({'num_feat': 8}, 'network_g has no type; add the name of a network'),
        ('LKDN', 'network_g does not describe a network; give its type'),
        ({'type': 'LKDN', 'num_feat': 1}, 'network_g is refused by LKDN: num_feat'),
        ({'type': 'LKDN', 'width': 8}, 'network_g is refused by LKDN: .*width'),
        ({'type': 'LKDN', 'num_feat': 12}, 'network_g does not fit the checkpoint: '),
    ],
)
def test_option_files_of_other_networks_are_refused(options, message, tmp_path):
    file = write_options(tmp_path / 'a.yml', options, save_checkpoint(small_lkdn(), tmp_path / 'a.pth'))
    with pytest.raises(InputError, match=f'a.yml.*{message}') as error:
        load(file)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('checkpoint, message', [(None, 'has no pretrain_network_g'), ('missing.pth', 'missing.pth')])
def test_option_files_without_a_checkpoint_are_refused(checkpoint, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load(write_options(tmp_path / 'a.yml', {'type': 'LKDN'}, checkpoint))


def test_another_scale_is_refused(tmp_path):
    path = save_checkpoint(small_lkdn(upscale=2), tmp_path / 'a.pth')
    with pytest.raises(InputError, match=f'{path} is a ×2 network, but --scale is 4'):
        load(path, 4)


SINGLE_CHANNEL = [small_lkdn(num_in_ch=1, num_out_ch=1), MSRResNet(1, 1, 8, 1, 4), RRDBNet(1, 1, 4, 8, 1, 4)]


@pytest.mark.parametrize('network', SINGLE_CHANNEL, ids=lambda network: type(network).__name__)
def test_single_channel_networks_are_refused(network, tmp_path):
    with pytest.raises(InputError, match='a.pth is a network for single-channel images'):
        load(save_checkpoint(network, tmp_path / 'a.pth'))


@pytest.mark.filterwarnings('ignore:built')
@pytest.mark.parametrize(
    'forward, message',
    [
        (lambda self, x: {}['no such key'], 'cannot upscale an RGB image .*no such key'),
        (lambda self, x: {'sr': x}, 'does not return an image'),
        (lambda self, x: x[:, :2], 'does not map RGB images to RGB images'),
    ],
)
def test_networks_that_do_not_upscale_are_refused(forward, message, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Talkative', Talkative)
    monkeypatch.setattr(Talkative, 'forward', forward)
    path = save_checkpoint(Talkative(), tmp_path / 'a.pth', network_g={'type': 'Talkative'})
    with pytest.raises(InputError, match=f'a.pth .*{message}'):
        load(path)


ENDLESS: list = []
ENDLESS.append(ENDLESS)
HUGE = [
    dict(num_block=10**9),
    dict(num_block=10**5),
    dict(num_feat=10**9),
    dict(num_feat=10**5),
    dict(lka_kernel=10**5),
]


@pytest.mark.parametrize(
    'entry',
    [
        *(None, 5, 'LKDN', ENDLESS, {}, {'type': 'Nothing'}, {'type': ['LKDN']}, {'type': 'LKDN', 3: 4}),
        *({'type': 'LKDN', **sizes} for sizes in HUGE),
        *({'type': 'LKDN', 'num_feat': value} for value in (float('nan'), 10**400, 'x', ENDLESS)),
        {'type': 'SwinIR', 'depths': [10**9], 'num_heads': [1]},
        {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'squeeze_factor': 0},
    ],
    ids=lambda entry: None if entry is ENDLESS else str(entry)[:40],
)
def test_wrong_entry_of_a_checkpoint_is_ignored(entry, tmp_path):
    loaded = load(save_checkpoint(small_lkdn(), tmp_path / 'a.pth', network_g=entry))
    assert torch.equal(outputs(loaded.network), outputs(reparam.fuse(small_lkdn())))


UNKNOWN = [
    *({}, {'params': {}}, {'a.weight': torch.zeros(3)}, {'params': [1, 2]}, {1: 2}, {'iter': 3, 'epoch': 1}),
    {'body.0.weight': torch.zeros(8, 3, 3, 3), 'body.1.weight': torch.zeros(8)},  # spandrel takes it for its own
    ECBSR(3, 3, 1, 8, True, 'prelu', 4).state_dict(),
]
CODE = nn.Conv2d(3, 3, 1)


@pytest.mark.parametrize('contents, message', [*((weights, 'give') for weights in UNKNOWN), (CODE, 'than tensors')])
def test_unknown_weights_and_files_with_code_are_refused(contents, message, tmp_path):
    torch.save(contents, tmp_path / 'a.pth')
    with pytest.raises(InputError, match=f'a.pth:? .*{message}'):
        load(tmp_path / 'a.pth')

"""Every kind of network from its file alone, equal to the one that was saved."""

import os
import warnings

import pytest
import torch
from basicsr.archs.ecbsr_arch import ECBSR
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.archs.srresnet_arch import MSRResNet
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from basicsr.archs.swinir_arch import SwinIR
from basicsr.utils.registry import ARCH_REGISTRY
from spandrel.architectures.OmniSR import OmniSR
from spandrel.architectures.PLKSR import PLKSR
from spandrel.architectures.SAFMN import SAFMN
from spandrel.architectures.SPAN import SPAN
from torch import nn
from torch.nn import functional as F

from lkdn_basicsr import archs
from lkdn_basicsr.errors import InputError
from lkdn_basicsr.evaluate.loading import load as networks
from tests.support.networks import save, shaken, small_lkdn

SWIN = {'window_size': 8, 'img_size': 16, 'depths': [2, 2], 'embed_dim': 8, 'num_heads': [2, 2], 'mlp_ratio': 2}


def outputs(network, window=1, size=(20, 22)):
    """What a network gives for a picture whose sides are multiples of no window, extended by reflection if need be."""
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        out = network(F.pad(x, (0, -size[1] % window, 0, -size[0] % window), 'reflect'))
    scale = out.shape[-1] // (size[1] + -size[1] % window)
    return out[..., : size[0] * scale, : size[1] * scale]


def architecture(loaded):
    """The name of the class that a file was taken for."""
    return type(getattr(loaded.network, 'core', loaded.network)).__name__


BASICSR = {
    **{f'MSRResNet x{s}': lambda s=s: MSRResNet(3, 3, 8, 2, s) for s in (2, 3, 4)},
    **{f'EDSR x{s}': lambda s=s: EDSR(3, 3, 8, 2, s) for s in (2, 3, 4, 8)},
    'EDSR large': lambda: EDSR(3, 3, 256, 1, 2, res_scale=0.1),
    'RCAN x3': lambda: RCAN(3, 3, 16, 2, 3, 4, 3),
    'RCAN x4': lambda: RCAN(3, 3, 8, 1, 1, 2, 4),
    'RRDBNet x4': lambda: RRDBNet(3, 3, 4, 8, 2, 4),
    'RRDBNet x2': lambda: RRDBNet(3, 3, 2, 8, 1, 4),
    'SRVGGNetCompact x2': lambda: SRVGGNetCompact(3, 3, 8, 2, 2),
    'SRVGGNetCompact x3': lambda: SRVGGNetCompact(3, 3, 8, 2, 3),
    'SwinIR light': lambda: SwinIR(upscale=3, upsampler='pixelshuffledirect', **SWIN),
    'SwinIR classical': lambda: SwinIR(upscale=4, upsampler='pixelshuffle', **SWIN),
    'SwinIR real world': lambda: SwinIR(upscale=4, upsampler='nearest+conv', resi_connection='3conv', **SWIN),
}


@pytest.mark.filterwarnings('ignore:torch.meshgrid')
@pytest.mark.parametrize('name', BASICSR)
def test_basicsrs_networks_are_told_by_their_weights(name, tmp_path):
    network = shaken(BASICSR[name]())
    loaded = networks.load(save(network, tmp_path / 'a.pth'))
    window = 8 if isinstance(network, SwinIR) else 4 // getattr(network, 'scale', 4)
    ours, theirs = outputs(loaded.network), outputs(network, window)
    assert ours.shape == theirs.shape
    assert loaded.scale == ours.shape[-1] // 22
    assert architecture(loaded) == type(network).__name__
    # The same operations in the same order, but for spandrel's clipping.
    assert torch.equal(ours.clamp(0, 1), theirs.clamp(0, 1))


SPANDREL = {
    'SPAN': (lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4), 1),
    'SAFMN': (lambda: SAFMN(dim=8, n_blocks=1, upscaling_factor=2), 8),
    'OmniSR': (lambda: OmniSR(num_feat=8, block_num=1, up_scale=4, res_num=1, bias=True, pe=True, window_size=8), 1),
    'PLKSR': (lambda: PLKSR(dim=16, n_blocks=1, upscaling_factor=4), 1),
}


@pytest.mark.filterwarnings('ignore:torch.meshgrid')
@pytest.mark.parametrize('name', SPANDREL)
def test_what_spandrel_knows_is_loaded(name, tmp_path, capfd):
    make, window = SPANDREL[name]
    network = shaken(make())
    capfd.readouterr()
    loaded = networks.load(save(network, tmp_path / 'a.pth', 'params_ema'))
    assert architecture(loaded) == name
    torch.testing.assert_close(outputs(loaded.network), outputs(network, window).clamp(0, 1), rtol=0, atol=1e-6)
    assert capfd.readouterr() == ('', '')


def test_span_is_counted_without_its_branches(tmp_path):
    network = shaken(SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=4))
    loaded = networks.load(save(network, tmp_path / 'a.pth')).network
    count = sum(parameter.numel() for parameter in loaded.parameters())
    branches = sum(value.numel() for key, value in network.named_parameters() if '.sk.' in key or '.conv.' in key)
    assert branches > 0
    assert count == sum(value.numel() for value in network.parameters()) - branches


@pytest.mark.parametrize('wrapped', [None, 'params', 'params_ema'])
def test_ours_are_fused(wrapped, tmp_path):
    network = small_lkdn(conv='BSConvU_rep', upsampler='pixelshuffle_rep', upscale=2)
    loaded = networks.load(save(network, tmp_path / 'LKDN_small.pth', wrapped))
    assert (loaded.scale, architecture(loaded), loaded.name) == (2, 'LKDN', 'LKDN_small')
    assert not any('rep1x1' in key for key in loaded.network.state_dict())
    # float32 sums in another order; the output is of the size of 1
    torch.testing.assert_close(outputs(loaded.network), outputs(network), rtol=0, atol=1e-5)


def test_bsrn_as_its_authors_save_it(tmp_path):
    network = small_lkdn(num_feat=16, attention='esa_cca', conv='BSConvU_idt').eval()
    renamed = {
        key.replace('upsampler.', 'upsampler.upsampleOneStep.'): value for key, value in network.state_dict().items()
    }
    torch.save({'params_ema': renamed}, tmp_path / 'BSRN.pth')
    loaded = networks.load(tmp_path / 'BSRN.pth')
    assert torch.equal(outputs(loaded.network), outputs(network))  # the shortcuts, which have no keys, among it


def test_averaged_weights_are_preferred(tmp_path):
    plain, averaged = small_lkdn(), shaken(small_lkdn(), seed=1)
    torch.save({'params': plain.state_dict(), 'params_ema': averaged.state_dict()}, tmp_path / 'a.pth')
    assert torch.equal(outputs(networks.load(tmp_path / 'a.pth').network), outputs(averaged))


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    network = small_lkdn()
    save_file(network.state_dict(), tmp_path / 'a.safetensors')
    assert torch.equal(outputs(networks.load(tmp_path / 'a.safetensors').network), outputs(network))
    (tmp_path / 'b.safetensors').write_bytes(b'no such thing')
    with pytest.raises(InputError, match='b.safetensors cannot be read'):
        networks.load(tmp_path / 'b.safetensors')


# ---------------------------------------------------- option files -------------------------------------------------- #


def write_options(path, network_g, checkpoint=None, **more):
    lines = [f'{key}: {value}' for key, value in more.items()]
    lines += ['network_g:', *(f'  {key}: {value}' for key, value in network_g.items())]
    lines += ['path:', f'  pretrain_network_g: {checkpoint}'] if checkpoint else []
    path.write_text('\n'.join(lines))
    return str(path)


def test_an_option_file_describes_what_weights_do_not_tell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = shaken(SRVGGNetCompact(3, 3, 8, 2, 4, act_type='relu'))
    save(network, tmp_path / 'a.pth')
    arguments = {'type': 'SRVGGNetCompact', 'num_feat': 8, 'num_conv': 2, 'upscale': 4}
    with pytest.raises(InputError, match=r'option file \(.yml\)'):
        networks.load('a.pth')
    relu = networks.load(write_options(tmp_path / 'test_relu.yml', {**arguments, 'act_type': 'relu'}, 'a.pth'))
    assert (relu.name, relu.scale) == ('test_relu', 4)
    assert torch.equal(outputs(relu.network), outputs(network))
    # The options are part of what the method is known by: the same weights give other pictures with others.
    leaky = networks.load(write_options(tmp_path / 'test_leaky.yml', {**arguments, 'act_type': 'leakyrelu'}, 'a.pth'))
    assert leaky.digest != relu.digest
    assert not torch.equal(outputs(leaky.network), outputs(network))


@pytest.mark.filterwarnings('ignore:torch.meshgrid')
def test_windows_of_networks_from_option_files_are_filled(tmp_path):
    network = shaken(SwinIR(upscale=2, upsampler='pixelshuffledirect', **SWIN))
    options = {'type': 'SwinIR', 'upscale': 2, 'upsampler': 'pixelshuffledirect', **SWIN}
    loaded = networks.load(write_options(tmp_path / 'a.yml', options, save(network, tmp_path / 'a.pth')))
    assert torch.equal(outputs(loaded.network), outputs(network, 8))
    assert outputs(loaded.network, size=(3, 5)).shape == (1, 3, 6, 10)  # too small to be extended by reflection


def test_the_option_file_of_its_run_describes_a_checkpoint(tmp_path):
    models = tmp_path / 'experiments' / 'EDSR_run' / 'models'
    models.mkdir(parents=True)
    network = shaken(EDSR(3, 3, 8, 2, 2, res_scale=0.5))  # which the weights do not tell
    path = save(network, models / 'net_g_5000.pth')
    guessed = networks.load(path)
    assert guessed.name == 'EDSR_run'
    assert not torch.equal(outputs(guessed.network), outputs(network))
    options = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2, 'upscale': 2}
    write_options(models.parent / 'EDSR_run.yml', {**options, 'res_scale': 0.5})
    (models.parent / 'broken.yml').write_text('a: [')
    described = networks.load(path)
    assert torch.equal(outputs(described.network), outputs(network))
    assert described.digest != guessed.digest


class Talkative(nn.Module):
    """A plugin's network, which says what it is."""

    def __init__(self, width=4):
        super().__init__()
        print('conv: BSConvU')
        warnings.warn('built', stacklevel=1)
        self.conv = nn.Conv2d(3, width, 1)
        self.upsample = nn.Sequential(nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x):
        return self.upsample(self.conv(x))


def test_a_plugins_network(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, 'Talkative', Talkative)
    network = shaken(Talkative(5))
    path = save(network, tmp_path / 'a.pth')
    capfd.readouterr()
    recwarn.clear()
    loaded = networks.load(write_options(tmp_path / 'a.yml', {'type': 'Talkative', 'width': 5}, path))
    assert (architecture(loaded), loaded.scale) == ('Talkative', 2)
    assert torch.equal(outputs(loaded.network), outputs(network))
    assert capfd.readouterr() == ('', '') and not recwarn.list


def test_what_our_model_class_trains_is_fused_from_its_option_file(tmp_path):
    network = small_lkdn(conv='BSConvU_rep')
    options = {'type': 'LKDN', 'num_feat': 8, 'num_atten': 8, 'num_block': 1, 'conv': 'BSConvU_rep'}
    file = write_options(tmp_path / 'a.yml', options, save(network, tmp_path / 'a.pth'), model_type='ReparamSRModel')
    assert not any('rep1x1' in key for key in networks.load(file).network.state_dict())


@pytest.mark.parametrize(
    'options, message',
    [
        ({'type': 'EDSSR'}, 'network_g:type is EDSSR, which is no known network; did you mean EDSR'),
        ({'type': 'LKDN', 'num_feat': 1}, 'network_g is refused by LKDN: num_feat'),
        ({'type': 'LKDN', 'width': 8}, 'network_g is refused by LKDN: .*width'),
        ({'type': 'LKDN', 'num_feat': 12}, 'network_g does not fit the checkpoint: '),
    ],
)
def test_option_files_that_describe_no_such_network(options, message, tmp_path):
    file = write_options(tmp_path / 'a.yml', options, save(small_lkdn(), tmp_path / 'a.pth'))
    with pytest.raises(InputError, match=f'a.yml.*{message}') as error:
        networks.load(file)
    assert '\n' not in str(error.value)


def test_an_option_file_without_a_checkpoint(tmp_path):
    with pytest.raises(InputError, match='has no pretrain_network_g'):
        networks.load(write_options(tmp_path / 'a.yml', {'type': 'LKDN'}))
    with pytest.raises(InputError, match='missing.pth is not there'):
        networks.load(write_options(tmp_path / 'a.yml', {'type': 'LKDN'}, tmp_path / 'missing.pth'))


# ------------------------------------------------------ refusals ---------------------------------------------------- #


def test_another_scale_is_refused(tmp_path):
    path = save(small_lkdn(upscale=2), tmp_path / 'a.pth')
    with pytest.raises(InputError, match=f'{path} is a ×2 network; --scale is 4'):
        networks.load(path, 4)


@pytest.mark.parametrize(
    'make',
    [
        lambda: small_lkdn(num_in_ch=1, num_out_ch=1),
        lambda: MSRResNet(1, 1, 8, 1, 4),
        lambda: RRDBNet(1, 1, 4, 8, 1, 4),
    ],
)
def test_single_channel_networks_are_refused(make, tmp_path):
    with pytest.raises(InputError, match='a.pth is a network for single-channel pictures'):
        networks.load(save(make(), tmp_path / 'a.pth'))


@pytest.mark.parametrize(
    'weights',
    [
        {},
        {'params': {}},
        {'a.weight': torch.zeros(3)},
        {'params': [1, 2]},
        {1: 2},
        {'iter': 3, 'epoch': 1},
        {'body.0.weight': torch.zeros(8, 3, 3, 3), 'body.1.weight': torch.zeros(8)},  # takes spandrel in
    ],
)
def test_unknown_weights(weights, tmp_path):
    torch.save(weights, tmp_path / 'a.pth')
    with pytest.raises(InputError, match='a.pth .*give'):
        networks.load(tmp_path / 'a.pth')


def test_a_network_of_basicsrs_that_weights_do_not_tell(tmp_path):
    network = ECBSR(3, 3, 1, 8, True, 'prelu', 4)
    with pytest.raises(InputError, match='is of no network that lkdn_basicsr, BasicSR or spandrel know'):
        networks.load(save(network, tmp_path / 'a.pth'))


def test_files_that_run_code_are_refused(tmp_path):
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / 'a.pth')
    with pytest.raises(InputError, match='more than tensors'):
        networks.load(tmp_path / 'a.pth')


def test_official_checkpoints(shared):
    loaded = networks.load(shared / 'official' / 'LKDN-S_x4.pth', 4)
    assert sum(parameter.numel() for parameter in loaded.network.parameters()) == 129177
    assert isinstance(loaded.network, archs.LKDN_S)
    assert os.path.basename(loaded.path) == 'LKDN-S_x4.pth'

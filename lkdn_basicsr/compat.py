"""What BasicSR 1.4.2 needs on today's stack: one function per defect, each naming it."""
import importlib.util
import sys
import types


def provide_functional_tensor():
    """BasicSR imports ``torchvision.transforms.functional_tensor``, gone since torchvision 0.17.

    Upstream: https://github.com/XPixelGroup/BasicSR/pull/650, fixed on master and in no release.
    """
    name = 'torchvision.transforms.functional_tensor'
    if importlib.util.find_spec(name) is None:
        from torchvision.transforms.functional import rgb_to_grayscale
        module = types.ModuleType(name)
        module.rgb_to_grayscale = rgb_to_grayscale
        sys.modules[name] = module


def apply():
    provide_functional_tensor()

"""Dependencies between the packages point one way."""

import re

import pytest

from tests.support.runs import ROOT

FORBIDDEN = {
    'archs|reparam|optim': 'data|models|options|training|evaluate|report|study|cli|compat|checkpoints',
    'data|options': 'training|evaluate|report|study|models',
    'models': 'data|options|training|evaluate|report|study',
    'evaluate': 'report|study|training',
    'training': 'evaluate|report|study',
}


@pytest.mark.parametrize('packages', FORBIDDEN)
def test_imports(packages):
    imported = re.compile(rf'from lkdn_basicsr(\.| import )({FORBIDDEN[packages]})\b')
    files = [file for name in packages.split('|') for file in (ROOT / 'lkdn_basicsr' / name).rglob('*.py')]
    assert len(files) > 1
    assert not {str(file): found[0] for file in files if (found := imported.search(file.read_text()))}

import pytest
import yaml

from lkdn_basicsr.options.diff import plain
from lkdn_basicsr.options.docs import render
from lkdn_basicsr.options.option_file import read_option_file
from tests.support.runs import ROOT

FILES = sorted(ROOT.glob('options/*.yml'))


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_basicsr_reads_the_same_values(file):
    """PyYAML, which BasicSR uses, reads ``5e-3`` as a string."""
    assert plain(read_option_file(file).opt) == yaml.safe_load(file.read_text())


def test_docs_are_those_of_the_table():
    advice = 'run: python -m lkdn_basicsr.options.docs > docs/options.md'
    assert (ROOT / 'docs/options.md').read_text(encoding='utf-8') == render(), advice

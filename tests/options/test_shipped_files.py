"""The option files of the repository, as BasicSR reads them."""

import pytest
import yaml

from lkdn_basicsr.options.diff import plain
from lkdn_basicsr.options.option_file import read_option_file
from tests.support.runs import ROOT

FILES = sorted(ROOT.glob('options/*.yml'))


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_basicsr_reads_the_same_values(file):
    """PyYAML, which BasicSR uses, reads ``5e-3`` as a string."""
    assert plain(read_option_file(file).opt) == yaml.safe_load(file.read_text())

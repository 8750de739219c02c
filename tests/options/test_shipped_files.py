import pytest
import yaml

from lkdn_basicsr.options.check_schema import check_schema
from lkdn_basicsr.options.diff import plain
from lkdn_basicsr.options.docs import render
from lkdn_basicsr.options.option_file import force_options, read_option_file
from tests.support.runs import ROOT

FILES = sorted(ROOT.glob('options/*.yml'))


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_basicsr_reads_the_same_values(file):
    """PyYAML, which BasicSR uses, reads ``5e-3`` as a string."""
    assert plain(read_option_file(file).opt) == yaml.safe_load(file.read_text())


def test_options_that_shipped_files_leave_out_can_be_forced():
    option_file = read_option_file(ROOT / 'options/train_LKDN_x4.yml')
    force_options(option_file, ['datasets:train:crop_size=200', 'val:metrics:niqe:type=calculate_niqe'])
    force_options(option_file, ['val:metrics:niqe:crop_border=4'])
    check_schema(option_file, True)
    assert option_file.opt['datasets']['train']['crop_size'] == 200


def test_docs_are_those_of_the_table():
    advice = 'run: python -m lkdn_basicsr.options.docs > docs/options.md'
    assert (ROOT / 'docs/options.md').read_text(encoding='utf-8') == render(), advice

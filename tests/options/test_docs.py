from pathlib import Path

from lkdn_basicsr.options.docs import render


def test_the_reference_is_that_of_the_table():
    page = Path(__file__).resolve().parents[2] / 'docs' / 'options.md'
    advice = 'make it again: python -m lkdn_basicsr.options.docs > docs/options.md'
    assert page.read_text(encoding='utf-8') == render(), advice

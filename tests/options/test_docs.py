from pathlib import Path

from lkdn_basicsr.options.docs import render


def test_docs_are_those_of_the_table():
    page = Path(__file__).resolve().parents[2] / 'docs' / 'options.md'
    advice = 'run: python -m lkdn_basicsr.options.docs > docs/options.md'
    assert page.read_text(encoding='utf-8') == render(), advice

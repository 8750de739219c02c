import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options import safe_yaml


def load(text):
    return safe_yaml.load(text, 'x.yml')[0]


def test_numbers_as_people_write_them():
    opt = load('a: 1e-3\nb: 5e3\nc: -1E-4\nd: !!float 2e-5\ne: .5\nf: 1.\ng: 2.5e+3\nh: [1e-4, 3]\ni: 1_000\n')
    assert list(opt.values()) == [1e-3, 5e3, -1e-4, 2e-5, 0.5, 1.0, 2500.0, [1e-4, 3], 1000]
    # What only looks like a number stays text.
    opt = load('a: e5\nb: 1e\nc: x1e5\nd: "1e5"\ne: 2023-01-01\n')
    assert list(opt.values()) == ['e5', '1e', 'x1e5', '1e5', '2023-01-01']


def test_order_anchors_and_merges():
    opt, lines = safe_yaml.load('z: &base {b: 1, a: 2}\ny:\n  a: 3\n  <<: *base\nx: *base\n', 'x.yml')
    assert list(opt) == ['z', 'y', 'x'] and list(opt['z']) == ['b', 'a']
    assert opt['y'] == {'b': 1, 'a': 3} and opt['x'] == {'b': 1, 'a': 2}
    assert lines[('y', 'b')] == 1 and lines[('y', 'a')] == 3


NUMBERS = ('!!int', '!!float', '!!bool')
LONG = ('9' * 5000, '1:' * 99 + '1', '0x' + 'f' * 5000, '.' + '1' * 999)


@pytest.mark.parametrize(
    'text, reason',
    [
        ('a: 1\nb: 2\na: 3\n', 'line 3: a is given a second time'),
        ('a:\n  b: 1\n  c: 2\n  b: 3\n', 'line 4: a:b is given a second time'),
        ('a: {b: 1, b: 2}\n', 'a:b is given a second time'),
        ('a: [{b: 1, b: 2}]\n', 'a:b is given a second time'),
        *((text, 'is not YAML') for text in ('a: [1, 2\n', 'a: 1\n---\nb: 2\n', 'a: *nowhere\n')),
        *(('a: 1\n\tb: 2\n', 'line 2: is not YAML'), ('a: b: c\n', 'line 1: is not YAML')),
        *(('1: a\n', "the key '1' is not text"), ('[a, b]: c\n', 'is not text')),
        *((f'a: 1\nb: {tag} x\n', f"line 2: b is 'x', which does not fit its tag {tag}") for tag in NUMBERS),
        *((f'a: {tag} ""\n', f"line 1: a is '', which does not fit its tag {tag}") for tag in NUMBERS),
        *((f'a: 1\nb: {value}\n', 'line 2: the tag !!') for value in ('!!map [1]', '!!map x', '!!seq x', '!!bool [a]')),
        *((f'a:\n  b: [{value}]\n', f"line 2: a:b is '{value[:60]}', a number of") for value in LONG),
        *((f'a: 1\nb: "x{value}"\n', 'with a character that no text') for value in (r'\0', r'\ud800')),
        (r'a: "\UFFFFFFFF"', 'is no character'),
        ('a: ' + '[' * 100 + ']' * 100, 'line 1 is not an option file: it is nested too deeply'),
        ('a: &a [*a]\n', 'nested too deeply'),
        ('a: 1\x00\x01', 'character 4 is invalid in YAML'),
        ('[' * 3000, 'nested too deeply'),
        (
            'a0: &a0 [x, x]\n' + ''.join(f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]\n' for i in range(1, 12)),
            'aliases make it endless or very large',
        ),
    ],
)
def test_refused_documents(text, reason):
    with pytest.raises(InputError) as caught:
        load(text)
    assert reason in str(caught.value) and 'x.yml' in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'value',
    [
        '!!python/object/apply:os.system ["touch PLANTED"]',
        '!!python/object/new:subprocess.Popen [["touch", "PLANTED"]]',
        *('!!python/name:os.system', '!!python/tuple [1, 2]', '!!binary aGVsbG8=', '!own {a: 1}'),
    ],
)
def test_no_tag_runs_code(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r'x\.yml, line 2: the tag .* is not allowed'):
        load(f'a: 1\nb: {value}\n')
    assert not (tmp_path / 'PLANTED').exists()

import pytest

from lkdn_basicsr.errors import InputError
from lkdn_basicsr.options.option_file import dump_yaml, force_options, load_yaml, read_option_file


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / 'x.yml'
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_numbers_as_people_write_them(write):
    opt = load_yaml(
        write('a: 1e-3\nb: 5e3\nc: -1E-4\nd: !!float 2e-5\ne: .5\nf: 1.\ng: 2.5e+3\nh: [1e-4, 3]\ni: 1_000\n')
    )
    assert list(opt.values()) == [1e-3, 5e3, -1e-4, 2e-5, 0.5, 1.0, 2500.0, [1e-4, 3], 1000]


def test_what_only_looks_like_a_number_stays_text(write):
    assert list(load_yaml(write('a: e5\nb: 1e\nc: x1e5\nd: "1e5"\ne: 2023-01-01\n')).values()) == [
        'e5',
        '1e',
        'x1e5',
        '1e5',
        '2023-01-01',
    ]


def test_order_anchors_and_merges(write):
    opt = load_yaml(write('z: &base {b: 1, a: 2}\ny:\n  <<: *base\n  a: 3\nx: *base\n'))
    assert list(opt) == ['z', 'y', 'x'] and list(opt['z']) == ['b', 'a']
    assert opt['y'] == {'b': 1, 'a': 3} and opt['x'] == {'b': 1, 'a': 2}


def test_lines_of_keys(write):
    source = read_option_file(write('# comment\na: 1\nb:\n  c:\n    d: 2\n'))
    assert source.where('b', 'c', 'd').endswith('x.yml, line 5: b:c:d')
    assert source.where('b', 'c', 'missing').endswith('x.yml, line 4: b:c:missing')


@pytest.mark.parametrize(
    'text, said',
    [
        ('a: 1\nb: 2\na: 3\n', 'line 3: a is given a second time'),
        ('a:\n  b: 1\n  c: 2\n  b: 3\n', 'line 4: a:b is given a second time'),
        ('a: {b: 1, b: 2}\n', 'a:b is given a second time'),
        ('', 'is empty'),
        ('# only a comment\n', 'is empty'),
        ('- a\n- b\n', 'holds one list'),
        ('hello\n', 'holds one str'),
        ('a: [1, 2\n', 'is not YAML'),
        ('a: 1\n\tb: 2\n', 'line 2: is not YAML'),
        ('a: b: c\n', 'line 1: is not YAML'),
        ('a: 1\n---\nb: 2\n', 'is not YAML'),
        ('a: *nowhere\n', 'is not YAML'),
        ('1: a\n', "the key '1' is not text"),
        ('[a, b]: c\n', 'is not text'),
        ('a: !!int abc\n', 'does not fit its tag'),
        ('a: !!float x\n', 'does not fit its tag'),
        ('a: &a [*a]\n', 'aliases make it endless'),
        (b'\x80\x04\x95\xff\xfe', 'is not UTF-8'),
        ('a: "ä"'.encode('latin-1'), 'is not UTF-8'),
        (b'a: 1\x00\x01', 'cannot be in YAML text'),
        ('a: 1'.encode('utf-16'), 'is not UTF-8'),
        ('[' * 3000, 'nested too deeply'),
        (b'a' * (1 << 21), 'too large'),
    ],
)
def test_files_that_are_no_option_files(write, text, said):
    path = write(text)
    with pytest.raises(InputError) as caught:
        load_yaml(path)
    assert said in str(caught.value) and path in str(caught.value) and '\n' not in str(caught.value)


def test_aliases_of_aliases_are_not_expanded(write):
    text = 'a0: &a0 [x, x]\n' + ''.join(f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]\n' for i in range(1, 12))
    with pytest.raises(InputError, match='aliases make it endless or very large'):
        load_yaml(write(text))


@pytest.mark.parametrize(
    'value',
    [
        '!!python/object/apply:os.system ["touch PLANTED"]',
        '!!python/object/new:subprocess.Popen [["touch", "PLANTED"]]',
        '!!python/name:os.system',
        '!!python/tuple [1, 2]',
        '!!binary aGVsbG8=',
        '!own {a: 1}',
    ],
)
def test_no_tag_runs_code(write, tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r'x\.yml, line 2: the tag .* is not allowed'):
        load_yaml(write(f'a: 1\nb: {value}\n'))
    source = read_option_file(write('a: 1\n'))
    with pytest.raises(InputError, match='is not allowed'):
        force_options(source, [f'a={value}'])
    assert not (tmp_path / 'PLANTED').exists()


def test_missing_file_folder_and_near_name(write, tmp_path):
    write('a: 1\n')
    with pytest.raises(InputError, match=r'does not exist; did you mean .*x\.yml'):
        load_yaml(str(tmp_path / 'xx.yml'))
    with pytest.raises(InputError, match='does not exist; check the path'):
        load_yaml('no_such_folder/a.yml')
    with pytest.raises(InputError, match='is a folder'):
        load_yaml(str(tmp_path))


class TestForce:
    @pytest.fixture
    def source(self, write):
        return read_option_file(
            write('a: 1\ntrain:\n  lr: 1\n  betas: [1, 2]\n  text: x\ndatasets:\n  test_1: {n: 1}\n')
        )

    @pytest.mark.parametrize(
        'entry, value',
        [
            ('a=1e-4', 1e-4),
            ('a=-1', -1),
            ('a=~', None),
            ('a=null', None),
            ('a=true', True),
            ('a=[1e-3, b]', [1e-3, 'b']),
            ('a={x: 1}', {'x': 1}),
            ('a=x=y=z', 'x=y=z'),
            ('a=!!float 3', 3.0),
            ("a='1'", '1'),
            ('a=', None),
            ('a= 7 ', 7),
            ('a=__import__("os").getcwd()', '__import__("os").getcwd()'),
            ('a=[].append(1)', None),
        ],
    )
    def test_values_by_the_rules_of_yaml(self, source, entry, value):
        if value is None and entry.endswith(')'):
            with pytest.raises(InputError, match='is not YAML'):
                force_options(source, [entry])
            return
        force_options(source, [entry])
        assert source.opt['a'] == value and type(source.opt['a']) is type(value) or isinstance(value, dict)

    def test_nested_keys_and_the_place_they_are_said_to_come_from(self, source):
        force_options(source, ['train:lr=2', 'datasets:test_1=~'])
        assert source.opt['train']['lr'] == 2 and source.opt['datasets']['test_1'] is None
        assert source.where('train', 'lr').endswith('x.yml, --force_yml: train:lr')
        assert source.where('train', 'betas').endswith('line 4: train:betas')

    @pytest.mark.parametrize(
        'entry, said',
        [
            ('train:lrr=1', 'train:lrr is not in .*x.yml; did you mean lr'),
            ('trian:lr=1', 'trian is not in .*x.yml; did you mean train'),
            ('train:lr:x=1', 'train:lr in .*x.yml holds a value'),
            ('train:lr', 'is not of the form'),
            ('=1', 'is not of the form'),
            ('train:=1', 'is not of the form'),
            ('a=[1', 'is not YAML'),
            ('a={b: 1, b: 2}', 'given a second time'),
        ],
    )
    def test_what_is_refused(self, source, entry, said):
        with pytest.raises(InputError, match=said):
            force_options(source, [entry])


def test_effective_options_are_an_option_file_again(write):
    opt = load_yaml(
        write(
            'name: ü\nscale: 2\nlr: 1e-7\nnone: ~\nword: "yes"\nmaybe: "1e-3"\n'
            'datasets:\n  val: {name: a}\npath: {b: c}\n'
        )
    )
    expected = load_yaml(write(dump_yaml(opt)))
    assert expected == opt and isinstance(expected['lr'], float) and expected['maybe'] == '1e-3'
    opt.update(rank=0, dist=False, is_train=True)
    opt['path'].update(models='m', log='l')
    opt['datasets']['val'].update(phase='val', scale=2)
    assert load_yaml(write(dump_yaml(opt))) == expected

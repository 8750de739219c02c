import base64
import html.parser
import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from lkdn_basicsr.evaluate.published import Published
from lkdn_basicsr.report import page
from lkdn_basicsr.report.regions import Region
from tests.support import results as made

NASTY = '<b>"LKDN" & \'co\'</b></script><!-- {{data}} \\u003c'
REGION = Region('Set5', 'p0', 500, 20, 40, 30)


class Reader(html.parser.HTMLParser):
    """Elements with their attributes, and the text of each table's row."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.scripts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == 'tr':
            self.rows.append([])
        elif tag in ('td', 'th'):
            self.rows[-1].append('')
        elif tag == 'script':
            self.scripts.append('')

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ('td', 'th') and self.rows:
            self.rows[-1][-1] += data.strip('\n')
        elif self.elements and self.elements[-1][0] == 'script':
            self.scripts[-1] += data


@pytest.fixture
def made_page(tmp_path):
    sets = [made.benchmark(tmp_path / 'Set5', [(200, 620)])]
    results = [
        made.bicubic(tmp_path, sets),
        made.result(NASTY, tmp_path, sets, made.noisy(5), psnr=31.234),
        made.result('second', tmp_path, sets, made.noisy(9), psnr=30.5),
    ]
    results[1].latency = 0.0125
    published = [Published('IMDN <i>', 4, 715_000, 40_900_000_000, {'Set5': (32.21, 0.8948)}, 'a paper & <its> table')]
    plot = tmp_path / 'plot.png'
    cv2.imwrite(str(plot), np.full((30, 40, 3), 200, np.uint8))
    path = tmp_path / 'index.html'
    page.write(str(path), NASTY, results, published, sets, [REGION], [(str(plot), 'what "it" shows')])
    return path, results, sets


def test_the_page_holds_the_figures_and_marks_the_best(made_page):
    text = made_page[0].read_text(encoding='utf-8')
    rows = Reader(text).rows
    assert [NASTY, '100', '5.0', '12.5', '31.23', '0.8000'] in rows
    assert ['second', '100', '5.0', '–', '30.50', '0.8000'] in rows
    assert ['Bicubic', '–', '–', '–', '25.00', '0.8000'] in rows
    assert ['IMDN <i>', '715', '40.9', '32.21', '0.8948'] in rows
    assert 'a paper &amp; &lt;its&gt; table' in text
    assert re.search(r'class="group best">31\.23<', text) and re.search(r'class="group second">30\.50<', text)


def test_what_is_given_is_text_never_markup(made_page):
    read = Reader(made_page[0].read_text(encoding='utf-8'))
    tags = [tag for tag, _ in read.elements]
    assert 'b' not in tags and tags.count('script') == 2
    assert json.loads(read.scripts[0])['methods'] == ['HR', 'Bicubic', NASTY, 'second']
    assert {'alt': 'what "it" shows'}.items() <= next(
        a for tag, a in read.elements if tag == 'img' and a.get('alt')
    ).items()


def test_the_page_asks_the_network_for_nothing(made_page):
    text = made_page[0].read_text(encoding='utf-8')
    assert not re.search(r'https?:', text)
    assert not re.search(r'@import|url\(|fetch\(|XMLHttpRequest', text)
    for _, attributes in Reader(text).elements:
        assert 'href' not in attributes
        assert attributes.get('src', 'data:').startswith('data:')
    policy = next(a['content'] for tag, a in Reader(text).elements if a.get('http-equiv'))
    assert policy.startswith("default-src 'none'")


def data_of(path):
    return json.loads(Reader(path.read_text(encoding='utf-8')).scripts[0])


def pixels(uri):
    kind, _, data = uri.partition(';base64,')
    assert kind == 'data:image/webp'
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_the_slider_has_the_very_pixels_around_the_region(made_page):
    path, results, sets = made_page
    shown = data_of(path)['regions'][0]
    assert shown['window'] == [480, 200]  # as much as there is, at most 480
    left, top = REGION.x - shown['x'], REGION.y - shown['y']
    assert (left, top) == (140, 0)
    pictures = {'0': sets[0].read('p0')[0]}
    pictures |= {str(i): cv2.imread(f'{result.scores["Set5"].folder}/p0.png') for i, result in enumerate(results, 1)}
    assert shown['pictures'].keys() == pictures.keys()
    for number, picture in pictures.items():
        assert (pixels(shown['pictures'][number]) == picture[:, left : left + 480]).all()
    assert shown['scores'] == {'1': [25.0, 0.8], '2': [31.234, 0.8], '3': [30.5, 0.8]}


def test_windows_get_smaller_where_they_would_take_too_much(tmp_path, made_page, monkeypatch):
    _, results, sets = made_page
    monkeypatch.setattr(page, 'BUDGET', 200_000)
    page.write(str(tmp_path / 'small.html'), 'small', results, (), sets, [REGION], [])
    shown = data_of(tmp_path / 'small.html')['regions'][0]
    assert sum(len(uri) for uri in shown['pictures'].values()) <= 200_000
    assert 40 <= shown['window'][0] < 480 and shown['x'] + 40 <= shown['window'][0]
    assert shown['y'] + 30 <= shown['window'][1]


def test_a_page_without_regions_and_plots_is_one(tmp_path, made_page):
    page.write(str(tmp_path / 'bare.html'), 'bare', made_page[1], (), made_page[2], [], [])
    text = (tmp_path / 'bare.html').read_text(encoding='utf-8')
    assert '31.23' in text and data_of(tmp_path / 'bare.html')['regions'] == []
    assert '<section id="visual" hidden>' in text  # which the script shows where there are regions


DRIVE = """<script>
(function () {
  var seen = [], split = document.getElementById('split');
  var look = function () { seen.push(getComputedStyle(document.getElementById('left-layer')).clipPath); };
  look();
  split.value = 20;
  split.dispatchEvent(new Event('input'));
  look();
  var left = document.getElementById('left');
  left.value = '3';
  left.dispatchEvent(new Event('change'));
  seen.push(document.getElementById('left-badge').textContent);
  seen.push(document.getElementById('left-figures').textContent);
  seen.push(document.getElementById('right-badge').textContent);
  seen.push(String(document.querySelectorAll('#crops button').length));
  document.documentElement.setAttribute('data-seen', btoa(unescape(encodeURIComponent(JSON.stringify(seen)))));
}());
</script></body>"""


def test_the_slider_moves_in_a_browser(tmp_path, made_page):
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None:
        pytest.skip('no Chromium is here')
    text = made_page[0].read_text(encoding='utf-8').replace('</body>', DRIVE)
    (tmp_path / 'driven.html').write_text(text, encoding='utf-8')
    command = [
        browser,
        '--headless=new',
        '--no-sandbox',
        '--disable-gpu',
        f'--user-data-dir={tmp_path / "profile"}',
        '--window-size=1200,900',
        '--dump-dom',
        f'file://{tmp_path / "driven.html"}',
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-seen="([^"]+)"', done.stdout)
    if found is None and '<html' not in done.stdout:
        pytest.skip(f'Chromium does not start here: {done.stderr[-300:]}')
    seen = json.loads(base64.b64decode(found[1]))
    assert seen == ['inset(0px 50% 0px 0px)', 'inset(0px 80% 0px 0px)', 'second', '30.50 dB / 0.8000', NASTY, '4']

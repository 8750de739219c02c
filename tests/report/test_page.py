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
from tests.support.results import add_noise, make_benchmark, make_bicubic, make_result

pytestmark = pytest.mark.slow  # many rendered pages

SPECIAL = '<b>"LKDN" & \'co\'</b></script><!-- {{data}} {% if %} \\u003c'
REGION = Region('Set5', 'p0', 500, 20, 40, 30)


class Parser(html.parser.HTMLParser):
    """Collect the elements of a page, in order: tag, attributes and text."""

    def __init__(self, path):
        super().__init__()
        self.elements = []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ''])

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2] += data.strip('\n')


def read_data(path):
    """Return what the page's script reads."""
    return json.loads(next(text for tag, _, text in Parser(path).elements if tag == 'script'))


@pytest.fixture
def measured(tmp_path):
    """Return benchmarks and results."""
    benchmarks = [make_benchmark(tmp_path / 'Set5', [(200, 620)])]
    results = [
        make_bicubic(tmp_path, benchmarks),
        make_result(SPECIAL, tmp_path, benchmarks, add_noise(5), psnr=31.234),
        make_result('second', tmp_path, benchmarks, add_noise(9), psnr=30.5),
    ]
    results[1].latency = 0.0125
    return benchmarks, results


@pytest.fixture
def path(tmp_path, measured):
    """Write a page with everything; return its path."""
    benchmarks, results = measured
    published = [Published('IMDN <i>', 4, 715_000, 40_900_000_000, {'Set5': (32.21, 0.8948)}, 'a paper & <its> table')]
    plot = str(tmp_path / 'plot.png')
    cv2.imwrite(plot, np.full((30, 40, 3), 200, np.uint8))
    path = tmp_path / 'index.html'
    page.write_page(str(path), SPECIAL, results, published, benchmarks, [REGION], {'Complexity': (plot, 'a "caption"')})
    return path


def test_page_contains_the_scores_and_marks_the_best(path):
    text = path.read_text(encoding='utf-8')
    cells = '|'.join(text for tag, _, text in Parser(path).elements if tag in ('th', 'td'))
    networks = f'{SPECIAL}|100|5.0|12.5|31.23|0.8000|second|100|5.0|–|30.50|0.8000'
    assert f'|Bicubic|–|–|–|25.00|0.8000|{networks}|' in cells
    assert '|IMDN <i>|715|40.9|32.21|0.8948' in cells
    assert 'a paper &amp; &lt;its&gt; table' in text
    assert re.search(r'class="group best">31\.23<', text) and re.search(r'class="group second">30\.50<', text)


def test_names_are_text_never_markup(path):
    tags, attributes, _ = zip(*Parser(path).elements)
    assert 'b' not in tags and tags.count('script') == 2
    assert read_data(path)['methods'] == ['HR', 'Bicubic', SPECIAL, 'second']
    assert 'a "caption"' in [each.get('alt') for each in attributes]


def test_page_loads_nothing_from_the_network(path):
    text = path.read_text(encoding='utf-8')
    assert not re.search(r'https?:', text)
    assert not re.search(r'@import|url\(|fetch\(|XMLHttpRequest', text)
    _, attributes, _ = zip(*Parser(path).elements)
    assert all('href' not in each and each.get('src', 'data:').startswith('data:') for each in attributes)
    policy = next(each['content'] for each in attributes if each.get('http-equiv'))
    assert policy.startswith("default-src 'none'")


def decode(uri):
    kind, _, data = uri.partition(';base64,')
    assert kind == 'data:image/webp'
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)


def test_slider_has_the_exact_pixels_around_the_region(measured, path):
    benchmarks, results = measured
    region = read_data(path)['regions'][0]
    assert region['window'] == [480, 200]  # the complete height, and at most 480
    left, top = REGION.x - region['x'], REGION.y - region['y']
    assert (left, top) == (140, 0)
    images = [benchmarks[0].read('p0')[0]]
    images += [cv2.imread(f'{result.scores["Set5"].folder}/p0.png') for result in results]
    assert region['images'].keys() == {'0', '1', '2', '3'}
    for number, image in enumerate(images):
        assert (decode(region['images'][str(number)]) == image[:, left : left + 480]).all()
    assert region['scores'] == {'1': [25.0, 0.8], '2': [31.234, 0.8], '3': [30.5, 0.8]}


def test_windows_are_smaller_if_they_exceed_the_budget(tmp_path, measured, monkeypatch):
    benchmarks, results = measured
    monkeypatch.setattr(page, 'BUDGET', 200_000)
    page.write_page(str(tmp_path / 'small.html'), 'small', results, (), benchmarks, [REGION], {})
    region = read_data(tmp_path / 'small.html')['regions'][0]
    assert sum(len(uri) for uri in region['images'].values()) <= 200_000
    width, height = region['window']
    assert width < 480 and region['x'] + 40 <= width and region['y'] + 30 <= height


def test_page_without_regions_and_plots(tmp_path, measured):
    benchmarks, results = measured
    path = tmp_path / 'bare.html'
    page.write_page(str(path), 'bare', results, (), benchmarks, [], {})
    text = path.read_text(encoding='utf-8')
    assert '31.23' in text and read_data(path)['regions'] == []
    assert '<section id="visual" hidden>' in text  # the script shows it only if there are regions
    assert 'Complexity' not in text and 'As published' not in text


DRIVE = """<script>
(function () {
  var seen = [], split = document.getElementById('split');
  var record = function () { seen.push(getComputedStyle(document.getElementById('left-layer')).clipPath); };
  record();
  split.value = 20;
  split.dispatchEvent(new Event('input'));
  record();
  var left = document.getElementById('left');
  left.value = '3';
  left.dispatchEvent(new Event('change'));
  ['left-badge', 'left-figures', 'right-badge'].forEach(id => seen.push(document.getElementById(id).textContent));
  seen.push(String(document.querySelectorAll('#crops button').length));
  document.documentElement.setAttribute('data-seen', btoa(unescape(encodeURIComponent(JSON.stringify(seen)))));
}());
</script></body>"""


def test_slider_moves_in_a_browser(tmp_path, path):
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None:
        pytest.skip('Chromium is not installed')
    driven = tmp_path / 'driven.html'
    driven.write_text(path.read_text(encoding='utf-8').replace('</body>', DRIVE), encoding='utf-8')
    options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--window-size=1200,900', '--dump-dom']
    command = [browser, *options, f'--user-data-dir={tmp_path / "profile"}', f'file://{driven}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'data-seen="([^"]+)"', done.stdout)
    if found is None and '<html' not in done.stdout:
        pytest.skip(f'Chromium does not start here: {done.stderr[-300:]}')
    seen = json.loads(base64.b64decode(found[1]))
    assert seen == ['inset(0px 50% 0px 0px)', 'inset(0px 80% 0px 0px)', 'second', '30.50 dB / 0.8000', SPECIAL, '4']

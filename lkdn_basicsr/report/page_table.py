"""The tables of the page, in HTML."""

import html

from lkdn_basicsr.evaluate.latency import device_name
from lkdn_basicsr.report.table import giga, marks, milliseconds, protocol, thousands

COSTS = ['Params [K]', 'Multi-Adds [G]']


def measured_table(results, names):
    """What was measured, a row for each method, and how; of the networks the best is bold, the second underlined.

    Args:
        results (list[Result]): The methods.
        names (list[str]): The test sets, in order.

    Returns:
        str: HTML.
    """
    marked = marks(results, names)
    timed = any(result.latency is not None for result in results)
    trained = any(result.seconds is not None for result in results)
    costs = COSTS + ['Latency [ms]'] * timed + ['Training [s]'] * trained
    rows = []
    for index, result in enumerate(results):
        row = [(thousands(result.params), ''), (giga(result.multi_adds), '')]
        if timed:
            row.append(('' if result.latency is None else milliseconds(result.latency), ''))
        if trained:
            row.append(('' if result.seconds is None else f'{result.seconds:,.0f}', ''))
        for name in names:
            row += marked.get((name, index), [('', '')] * 2)
        rows.append((result.method, row))
    said = protocol(results) + f' Latencies are those of {device_name()}.' * timed
    return _table('Measured', costs, names, rows) + f'\n<p class="note">{html.escape(said)}</p>'


def published_table(published, names):
    """What others published, and where, below the table; without marks, as it was not measured here.

    Args:
        published (list[Published]): The methods.
        names (list[str]): The test sets, in order.

    Returns:
        str: HTML.
    """
    names = [name for name in names if any(name in entry.sets for entry in published)]
    rows = []
    for entry in published:
        row = [(thousands(entry.params), ''), (giga(entry.multi_adds), '')]
        for name in names:
            psnr, ssim = entry.sets.get(name, (None, None))
            row += [('' if psnr is None else f'{psnr:.2f}', ''), ('' if ssim is None else f'{ssim:.4f}', '')]
        rows.append((entry.method, row))
    text = _table('Published', COSTS, names, rows) + '\n<ul class="note">'
    for source in dict.fromkeys(entry.source for entry in published):
        methods = ', '.join(entry.method for entry in published if entry.source == source)
        text += f'<li>{html.escape(methods)}: {html.escape(source)}</li>'
    return text + '</ul>'


def _table(label, costs, names, rows):
    """Rows are (method, [(text, mark)]), with a cell for each cost, then two for each test set."""
    top = ''.join(f'<th scope="col" rowspan="2">{html.escape(cost)}</th>' for cost in costs)
    top += ''.join(f'<th scope="colgroup" colspan="2" class="group">{html.escape(name)}</th>' for name in names)
    below = '<th scope="col" class="group">PSNR</th><th scope="col">SSIM</th>' * len(names)
    body = ''.join(
        f'<tr><th scope="row" class="method">{html.escape(method)}</th>{_cells(row, len(costs))}</tr>\n'
        for method, row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>\n<thead><tr>'
        f'<th scope="col" rowspan="2" class="method">Method</th>{top}</tr><tr>{below}</tr></thead>\n'
        f'<tbody>\n{body}</tbody></table></div>'
    )


def _cells(row, costs):
    text = ''
    for i, (shown, mark) in enumerate(row):
        begins_set = i >= costs and (i - costs) % 2 == 0
        classes = ' '.join(['group'] * begins_set + [mark] * bool(mark))
        text += f'<td class="{classes}">{shown or "–"}</td>'
    return text

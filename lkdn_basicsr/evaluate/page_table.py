"""The tables of the page, in HTML."""
import html


def measured_table(results, names):
    """What was measured, a row for each method, the best of each column bold and the second best underlined.

    Args:
        results (list[Result]): The methods.
        names (list[str]): The test sets, in order.

    Returns:
        str: HTML.
    """
    columns = [('Parameters', [r.params for r in results], '{:,}', None),
               ('Multi-Adds', [r.multi_adds for r in results], '{:.1f} G', 1e9)]  # yapf: disable
    columns += [(label, [getattr(r, key) for r in results], text, per)
                for label, key, text, per in (('Latency', 'latency', '{:.1f} ms', 1e-3),
                                              ('Training', 'seconds', '{:,.0f} s', None))
                if any(getattr(r, key) is not None for r in results)]  # yapf: disable
    scores = {name: [r.sets.get(name) for r in results] for name in names}
    cells = [[_cell(value / per if per and value is not None else value, text) for value in values]
             for _, values, text, per in columns]  # yapf: disable
    for name in names:
        for key, text in (('mean_psnr', '{:.2f}'), ('mean_ssim', '{:.4f}')):
            values = [None if score is None else getattr(score, key) for score in scores[name]]
            cells.append(_marked(values, text))
    return _table('Measured', [label for label, *_ in columns], names, [r.method for r in results], cells)


def published_table(published, names):
    """What others published, with where; without marks, as it was not measured here.

    Args:
        published (list[Published]): The methods.
        names (list[str]): The test sets, in order.

    Returns:
        str: HTML.
    """
    names = [name for name in names if any(name in p.sets for p in published)]
    cells = [[_cell(p.params, '{:,}') for p in published],
             [_cell(None if p.multi_adds is None else p.multi_adds / 1e9, '{:.1f} G') for p in published]]
    for name in names:
        for k, text in enumerate(('{:.2f}', '{:.4f}')):
            cells.append([_cell(p.sets.get(name, (None, None))[k], text) for p in published])
    sources = list(dict.fromkeys(p.source for p in published))
    table = _table('Published', ['Parameters', 'Multi-Adds'], names, [p.method for p in published], cells)
    said = ''.join(f'<p class="note">{html.escape(", ".join(p.method for p in published if p.source == source))}: '
                   f'{html.escape(source)}</p>' for source in sources)
    return table + '<p class="note">Not measured here, but copied from:</p>' + said


def _table(label, columns, names, methods, cells):
    """Rows of methods; ``cells`` has a list for each column, two for each test set."""
    top = ''.join(f'<th scope="col" rowspan="2">{column}</th>' for column in ['Method', *columns])
    top += ''.join(f'<th scope="colgroup" colspan="2" class="group">{html.escape(name)}</th>' for name in names)
    below = '<th scope="col" class="group">PSNR</th><th scope="col">SSIM</th>' * len(names)
    rows = ''.join(f'<tr><th scope="row">{html.escape(method)}</th>{"".join(row)}</tr>\n'
                   for method, row in zip(methods, zip(*cells)))  # yapf: disable
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table>\n<thead><tr>{top}</tr>'
            f'<tr>{below}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>')


def _marked(values, text):
    """Cells of a column, where equal as printed is equal."""
    printed = sorted({text.format(value) for value in values if value is not None}, key=float, reverse=True)
    marks = dict(zip(printed, ('best', 'second'))) if len(printed) > 1 else {}
    return [_cell(value, text, marks.get(text.format(value)) if value is not None else None) for value in values]


def _cell(value, text, mark=None):
    shown = '–' if value is None else text.format(value)
    return f'<td class="{mark}">{shown}</td>' if mark else f'<td>{shown}</td>'

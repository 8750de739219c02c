"""The tables: as Markdown in the layout of the paper's Table 5, and as CSV."""

import csv
import io

from lkdn_basicsr.evaluate.latency import device_name

PUBLISHED_HEADING = 'As published, not measured here'
MARKDOWN = {'best': '**{}**', 'second': '<u>{}</u>', '': '{}'}


def markdown(results, published=(), device=None):
    """The table of what was measured, the protocol under it, and what is published in a table of its own.

    Of the networks (not bicubic) the best PSNR and SSIM of each set is bold, the second best underlined, as printed.

    Args:
        results (Sequence[Result]): the rows, in this order; bicubic first, by custom.
        published (Sequence[Published]): of the same sets.
        device (str | None): what the latencies are of. Default: None, this machine.

    Returns:
        str
    """
    sets = _set_names(results)
    timed = any(result.latency is not None for result in results)
    seconds = any(result.seconds is not None for result in results)
    head = ['Method', 'Scale', 'Params [K]', 'Multi-Adds [G]', *(f'{name} PSNR / SSIM' for name in sets)]
    if timed:
        device = device or device_name()
        head.append(f'Latency [ms] on {device}')
    if seconds:
        head.append('Training [s]')
    marked = marks(results, sets)
    rows = []
    for index, result in enumerate(results):
        row = [result.method, f'×{result.scale}', thousands(result.params), giga(result.multi_adds)]
        row += [
            ' / '.join(MARKDOWN[mark].format(value) for value, mark in marked[name, index])
            if (name, index) in marked
            else ''
            for name in sets
        ]
        if timed:
            row.append('' if result.latency is None else milliseconds(result.latency))
        if seconds:
            row.append('' if result.seconds is None else f'{result.seconds:,.0f}')
        rows.append(row)
    text = [_table(head, rows), '\n', protocol(results), '\n']
    if published:
        sets = [name for name in sets if any(name in entry.sets for entry in published)]
        head = ['Method', 'Scale', 'Params [K]', 'Multi-Adds [G]', *(f'{name} PSNR / SSIM' for name in sets), 'Source']
        rows = [
            [
                entry.method,
                f'×{entry.scale}',
                thousands(entry.params),
                giga(entry.multi_adds),
                *(
                    f'{entry.sets[name][0]:.2f} / {entry.sets[name][1]:.4f}' if name in entry.sets else ''
                    for name in sets
                ),
                entry.source,
            ]
            for entry in published
        ]
        text += [f'\n## {PUBLISHED_HEADING}\n\n', _table(head, rows)]
    return ''.join(text)


def protocol(results):
    """How the figures came about, in a paragraph to be set under the table.

    Args:
        results (Sequence[Result]): they say the scales, and what was measured at all.

    Returns:
        str: one line of Markdown or plain text.
    """
    scales = sorted({result.scale for result in results})
    border = f'{scales[0]} pixels' if len(scales) == 1 else 'as many pixels as the scale'
    text = (
        f'PSNR [dB] / SSIM on Y of YCbCr, outputs rounded to 8 bits, without a border of {border}; LR pictures and '
        "the method Bicubic by MATLAB's bicubic resize. Best in bold, second best underlined. Re-parameterized "
        'networks are fused. Multi-Adds are for an output of 1280×720: multiplications of convolutions, linear '
        'layers, matrix products and attention, and two per value of a normalisation layer; not those of '
        'activations, products element by element, pooling and interpolation.'
    )
    if any(result.latency is not None for result in results):
        text += (
            ' Latency is for the same output, float32, one picture at a time: the median of a few runs after a warm-up.'
        )
    return text


def csv_text(results):
    """What was measured, as CSV.

    Args:
        results (Sequence[Result]): the rows.

    Returns:
        str: columns ``method, scale, params, multi_adds``, ``<set>_psnr`` [dB] and ``<set>_ssim`` of each set,
        ``latency`` [ms], and ``seconds`` of training where any result has that. What was not measured is empty.
    """
    sets = _set_names(results)
    seconds = any(result.seconds is not None for result in results)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(
        [
            'method',
            'scale',
            'params',
            'multi_adds',
            *(f'{name}_{metric}' for name in sets for metric in ('psnr', 'ssim')),
            'latency',
            *['seconds'] * seconds,
        ]
    )
    for result in results:
        row = [result.method, result.scale, result.params, result.multi_adds]  # None is written as nothing
        for name in sets:
            scores = result.scores.get(name)
            row += ['', ''] if scores is None else [f'{scores.mean_psnr:.6f}', f'{scores.mean_ssim:.6f}']
        row.append('' if result.latency is None else f'{result.latency * 1000:.3f}')
        if seconds:
            row.append('' if result.seconds is None else f'{result.seconds:.1f}')
        writer.writerow(row)
    return stream.getvalue()


def _set_names(results):
    return list(dict.fromkeys(name for result in results for name in result.scores))


def marks(results, sets):
    """Scores as they are printed, and which are the best and the second best of the networks, bicubic left out.

    Args:
        results (Sequence[Result]): the rows.
        sets (Sequence[str]): the test sets.

    Returns:
        dict[tuple[str, int], list[tuple[str, str]]]: by set and index of the result, for PSNR and SSIM the printed
        number with ``'best'``, ``'second'`` or ``''``.
    """
    marked = {}
    for name in sets:
        for metric, digits in (('psnr', 2), ('ssim', 4)):
            printed = {
                index: f'{getattr(result.scores[name], f"mean_{metric}"):.{digits}f}'
                for index, result in enumerate(results)
                if name in result.scores
            }
            networks = [index for index in printed if results[index].params is not None]
            order = sorted({printed[index] for index in networks}, key=float, reverse=True)
            places = dict(zip(order, ('best', 'second'))) if len(networks) > 1 else {}
            for index, value in printed.items():
                mark = places.get(value, '') if index in networks else ''
                marked.setdefault((name, index), []).append((value, mark))
    return marked


def _table(head, rows):
    """Markdown; the first column to the left, numbers to the right."""
    cells = [[str(cell).replace('|', '\\|') for cell in row] for row in (head, *rows)]
    lines = [' | '.join(row) for row in cells]
    lines.insert(1, ' | '.join([':--', *['--:'] * (len(head) - 1)]))
    return ''.join(f'| {line} |\n' for line in lines)


def thousands(params):
    """Parameters in K, as it is printed; nothing where there is none."""
    return '' if params is None else f'{params / 1e3:,.0f}' if params >= 1e4 else f'{params / 1e3:.1f}'


def giga(multi_adds):
    """Multi-Adds in G, likewise."""
    return '' if multi_adds is None else f'{multi_adds / 1e9:,.1f}' if multi_adds >= 1e9 else f'{multi_adds / 1e9:.2f}'


def milliseconds(seconds):
    """A latency in ms, likewise."""
    return f'{seconds * 1000:,.0f}' if seconds >= 0.1 else f'{seconds * 1000:.1f}'

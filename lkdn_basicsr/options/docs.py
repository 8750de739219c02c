"""``python -m lkdn_basicsr.options.docs > docs/options.md``: all options, from the table that checks them."""

from lkdn_basicsr.options.schema import ABSENT, CLOSED_MODELS, OTHER_DATASETS, REQUIRED, SECTIONS

_HEAD = f"""# Options

Made from the table that checks option files (`lkdn_basicsr/options/schema.py`) by
`python -m lkdn_basicsr.options.docs > docs/options.md`; change the table, not this page.

An option file is YAML, read as plain data: no tags that run code, no key twice, `1e-3` a number. A key that is not
known is refused with its line and the nearest name. `*` in a name stands for a name of your choice, or for the name of
a network. Arguments of networks, losses, metrics, optimizers and schedulers are those of the class or function that
`type` names, and are checked against its signature. Where `model_type` is not one of {', '.join(CLOSED_MODELS)}, keys
of that model are let through at the top and in `train` and `val`.

A file that begins with `base: ../train_LKDN_x4.yml` says only what differs from that file, which may have a base too;
the path is relative to the file that it stands in. A block is merged with the block of that name in the base, key by
key; anything else (a value, a list, `~`) takes the place of what the base has. A block that names another `type` than
the base's takes nothing from it, so that Adam does not get Adan's three `betas`. Runs write down the merged options.

`--force_yml a:b=value` sets a key that the file or a base of it has, by the same rules; `~` as the value of a data set
leaves it out.
"""


def render():
    """The page, as Markdown text."""
    parts = [_HEAD]
    for section, rows in SECTIONS.items():
        parts.append(f'\n## {f"`{section}`" if section else "At the top"}\n')
        parts.append('| key | type | default | values | |\n|---|---|---|---|---|')
        parts += [f'| `{row.key}` | {_kind(row)} | {_default(row)} | {_valid(row)} | {row.text} |' for row in rows]
    parts.append('\n## Other data sets of BasicSR\n')
    parts.append('The keys of `datasets.*`, and these:\n')
    parts += [f'- `{name}`: {", ".join(f"`{key}`" for key in keys.split())}' for name, keys in OTHER_DATASETS.items()]
    return '\n'.join(parts) + '\n'


def _kind(row):
    names = {
        'null': '`~`',
        'auto': '`auto`',
        'ints': 'list of int',
        'numbers': 'list of numbers',
        'texts': 'list of texts',
    }
    return ' or '.join(names.get(kind, kind) for kind in row.kind.split(' | '))


def _default(row):
    if row.default is REQUIRED:
        return 'required'
    if row.default is ABSENT or row.default == {}:
        return ''
    words = {None: '~', True: 'true', False: 'false'}
    if isinstance(row.default, dict):
        return ', '.join(f'`{key}: {value}`' for key, value in row.default.items())
    return f'`{words[row.default] if row.default is None or isinstance(row.default, bool) else row.default}`'


def _valid(row):
    if row.valid is None:
        return ''
    return (
        ', '.join(f'`{name}`' for name in row.valid) if isinstance(row.valid, tuple) else row.valid.replace('inf', '∞')
    )


if __name__ == '__main__':
    print(render(), end='')

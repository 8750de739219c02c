"""Write all options as a page of docs, from the table that checks them.

``python -m lkdn_basicsr.options.docs > docs/options.md``
"""

from lkdn_basicsr import cli
from lkdn_basicsr.options.schema import ABSENT, CLOSED_MODELS, OTHER_DATASETS, REQUIRED, SECTIONS, Option

_HEAD = f"""# Options

This page is made from the table that checks option files, `lkdn_basicsr/options/schema.py`, by
`python -m lkdn_basicsr.options.docs > docs/options.md`. To change it, change the table.

**File.** `-opt train_LKDN_x4.yml` and `-opt options/train_LKDN_x4.yml` name a file in the current folder.
If there is none, the option file of that name that comes with the package is used. `--check` prints which file it is.

**Syntax.** An option file is YAML, and is read as plain data. Tags that run code are refused. A key that is given
twice is refused. `1e-3` is a number. An unknown key is refused, with its line and the nearest known name. `*` in a name
below is a name of your choice, or the name of a network.

**Arguments.** In a block with a `type` (network, loss, metric, optimizer, scheduler) the other keys are the arguments
of that class or function. They are checked against its signature. Models other than
{', '.join(CLOSED_MODELS)} may have options of their own at the top and in
`train` and `val`; these are not checked.

**Base.** A file with the line `base: ../train_LKDN_x4.yml` contains only what differs from that file. The path is
relative to the file that has this line. If there is no such file, `base: train_LKDN_x4.yml` names the option file that
comes with the package, as for `-opt`. The base may have a base as well. A block is merged with the block of that name
in the base, key by key. Anything else (a value, a list, `~`) replaces what the base has. A block whose `type` differs
from the base's replaces it: Adam does not get Adan's three `betas`. A run writes the merged options to a file next to
its log.

**Command line.** `--force_yml a:b=value` sets an option, whether or not the file has it; the value is read as YAML.
`datasets:test_2=~` leaves a dataset out.
"""
_KINDS = dict(null='`~`', auto='`auto`', ints='list of int', numbers='list of numbers', texts='list of texts')


def render() -> str:
    """Return the page, as Markdown."""
    parts = [_HEAD]
    for section, options in SECTIONS.items():
        parts.append(f'\n## {f"`{section}`" if section else "At the top"}\n')
        parts += ['| key | type | default | values | |', '|---|---|---|---|---|', *map(_row, options)]
    parts += ['\n## Other datasets of BasicSR\n', 'Besides the options of `datasets.*`:\n']
    parts += [f'- `{name}`: {", ".join(f"`{key}`" for key in keys.split())}' for name, keys in OTHER_DATASETS.items()]
    return '\n'.join(parts) + '\n'


def _row(option: Option) -> str:
    kind = ' or '.join(_KINDS.get(kind, kind) for kind in option.kind.split(' | '))
    if option.default is REQUIRED:
        default = 'required'
    elif option.default is ABSENT or option.default == {}:
        default = ''
    elif isinstance(option.default, dict):
        default = ', '.join(f'`{key}: {value}`' for key, value in option.default.items())
    else:
        default = '`{}`'.format(
            {'None': '~', 'True': 'true', 'False': 'false'}.get(str(option.default), option.default)
        )
    if isinstance(option.valid, tuple):
        valid = ', '.join(f'`{name}`' for name in option.valid)
    else:
        valid = (option.valid or '').replace('inf', '∞')
    return f'| `{option.key}` | {kind} | {default} | {valid} | {option.text} |'


if __name__ == '__main__':
    with cli.report_errors('python -m lkdn_basicsr.options.docs'):
        print(render(), end='')

"""``python -m lkdn_basicsr.test -opt FILE``: BasicSR's test pipeline and flags."""

from lkdn_basicsr import cli


def main() -> None:
    cli.run('test')


if __name__ == '__main__':
    main()

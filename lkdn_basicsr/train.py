"""``python -m lkdn_basicsr.train -opt FILE``: BasicSR's training pipeline and flags."""

from lkdn_basicsr import cli


def main() -> None:
    cli.run('train')


if __name__ == '__main__':
    main()

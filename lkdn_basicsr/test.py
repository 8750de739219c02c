"""``python -m lkdn_basicsr.test -opt FILE``: test a network, with BasicSR's flags."""

import os

from lkdn_basicsr import cli

PROG = 'python -m lkdn_basicsr.test'


def main() -> None:
    with cli.report_errors(PROG):
        cli.build_parser(PROG).parse_args()  # --help and typos are answered under this name
        from lkdn_basicsr.training.run import test_pipeline  # needs OpenCV, see report_errors

        test_pipeline(os.getcwd())


if __name__ == '__main__':
    main()

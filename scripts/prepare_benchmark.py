#!/usr/bin/env python
"""The same as ``python -m lkdn_basicsr.prepare benchmark``."""

import sys

from lkdn_basicsr.prepare import main

if __name__ == '__main__':
    main(['benchmark', *sys.argv[1:]])

#!/usr/bin/env python
"""The same as ``python -m lkdn_basicsr.prepare train``, or ``verify`` if that is the first argument."""

import sys

from lkdn_basicsr.prepare import main

if __name__ == '__main__':
    main(sys.argv[1:] if sys.argv[1:2] == ['verify'] else ['train', *sys.argv[1:]])

#!/usr/bin/env bash
# The whole test suite, in the environment that demo.sh uses too. Arguments go to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "$python" -m pytest "$@"

#!/usr/bin/env bash
# Runs all tests in the environment that demo.sh uses. Arguments are passed to pytest.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
exec "$python" -m pytest "$@"

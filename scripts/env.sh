# Sourced by demo.sh and test.sh: installs this package and its dependencies in .venv if necessary, and defines $python.
# PYTHON=/path/to/python3.12 selects the interpreter of a new environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  echo "$0: error: $*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "Python 3.11 or 3.12 is required (torch needs 3.11, BasicSR 1.4.2 does not build on 3.13):" \
    "install one and select it with PYTHON=python3.12 bash $0"
}

python=.venv/bin/python
required=$(cat setup.py constraints.txt scripts/env.sh | sha256sum)
if [[ ! -x $python || "$(cat .venv/installed 2>/dev/null)" != "$required" ]]; then
  if [[ ! -x $python ]]; then
    base=$(find_python)
    echo "Creating .venv with $("$base" --version)"
    "$base" -m venv .venv || die "$base cannot create a virtual environment: install its venv module" \
      "(Debian: apt install python3-venv)"
  fi
  echo "Installing lkdn_basicsr and its dependencies (about 6 GB with the CUDA libraries of torch)"
  export PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1
  # BasicSR is a source archive whose build imports torch. Installing torch first, and building without isolation, keeps
  # pip from installing a second torch for the build.
  $python -m pip install setuptools cython numpy torch torchvision
  $python -m pip install --no-build-isolation -e '.[test]'
  if ! problem=$($python -c 'import cv2' 2>&1) && grep -q '\.so' <<<"$problem"; then
    echo "OpenCV does not load (${problem##*$'\n'}); installing the build without GUI support"
    $python -m pip uninstall -y opencv-python
    $python -m pip install opencv-python-headless
  fi
  $python -c 'import lkdn_basicsr' || die "the environment is incomplete: remove .venv and run this command again"
  echo "$required" >.venv/installed
fi

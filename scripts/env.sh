# Sourced by demo.sh and test.sh: makes sure that .venv holds this package and what it needs, and defines $python.
# PYTHON=/path/to/python3.12 chooses the interpreter that a new environment is made with.
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
  die "Python 3.11 or 3.12 is needed (torch asks for 3.11, BasicSR 1.4.2 does not build on 3.13):" \
    "install one and name it, as in PYTHON=python3.12 bash $0"
}

python=.venv/bin/python
wanted=$(cat setup.py constraints.txt scripts/env.sh | sha256sum)
if [[ ! -x $python || "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]]; then
  if [[ ! -x $python ]]; then
    base=$(find_python)
    echo "Making .venv with $("$base" --version)"
    "$base" -m venv .venv || die "$base cannot make a virtual environment: install its venv module" \
      "(Debian: apt install python3-venv)"
  fi
  echo "Installing lkdn_basicsr and what it needs, torch among it (about 6 GB with its CUDA libraries)"
  export PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1
  # BasicSR is a source archive that wants torch to be built. With torch there first and no isolated build environment,
  # pip does not install a second torch for that.
  $python -m pip install setuptools cython numpy torch torchvision
  $python -m pip install --no-build-isolation -e '.[test]'
  if ! problem=$($python -c 'import cv2' 2>&1) && grep -q '\.so' <<<"$problem"; then
    echo "OpenCV does not load (${problem##*$'\n'}); taking the build without a display"
    $python -m pip uninstall -y opencv-python
    $python -m pip install opencv-python-headless
  fi
  $python -c 'import lkdn_basicsr' || die "the environment is incomplete: remove .venv and run this again"
  echo "$wanted" >.venv/installed
fi

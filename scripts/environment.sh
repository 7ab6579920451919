# Sourced by the other scripts: makes or reuses .venv in the checkout and installs deepem with its extras into it.
# PYTHON names another interpreter than python3 (3.10 or later).

deepem_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$deepem_root"

stamp="$(cat setup.py constraints.txt scripts/environment.sh | cksum)"
if [ ! -x .venv/bin/python ]; then
    "${PYTHON:-python3}" -m venv .venv
fi
if [ "$(cat .venv/.installed 2>/dev/null)" != "$stamp" ]; then
    echo "installing into .venv (torch is large: this takes a while the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --constraint constraints.txt --editable ".[dev]" 2> >(grep -v "^WARNING: Location" >&2)
    echo "$stamp" > .venv/.installed
fi
export PATH="$deepem_root/.venv/bin:$PATH"

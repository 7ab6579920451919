#!/usr/bin/env bash
# Makes the environment and runs the tests; words after it go to pytest, such as -m slow or a path.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export OMP_NUM_THREADS=1
exec python -m pytest -n 2 "$@"

#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command and five minutes:
#
#     bash scripts/benchmark/gpu.sh OUT [--packed FOLDER] [--fib25 FOLDER] [--small] [--only SECTION ...]
# On a machine with a network, before: `gpu.sh --pack FOLDER [--fib25 FOLDER] [--there FILE]` packs what a bare one lacks.
#
# OUT/figures.json and OUT/table.md hold the figures, each as soon as it is there; OUT/logs what the programs said. The
# sections are tests, step, loop, inference and learning. One that fails or takes longer than its budget leaves its
# error, and the others go on. Exit code 0: all went well; 1: a section failed; 2: it could not begin.
#
# --packed  the folder that --pack has made: its wheels go into OUT/venv, without a network and only where the machine
#           has no package that will do; its fib25 is the one to train on
# --fib25   the folder that holds fib25/img.h5 and fib25/seg.h5 (default with --pack: data)
# --there   for --pack: the packages that the machine has, as its `pip list --format freeze` gives them
# --small   tiny sizes, also on a CPU, to see that everything works
set -uo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
programs=$root/scripts/benchmark/gpu
usage="usage: gpu.sh OUT [--packed FOLDER] [--fib25 FOLDER] [--small] [--only SECTION ...], or gpu.sh --pack FOLDER"
python=${PYTHON:-python3}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

if [ "${1:-}" = --pack ] && [ $# -gt 1 ]; then
    shift
    exec "$python" "$programs/pack.py" "$@"
fi
out=${1:-}
case $out in "" | -*) echo "$usage" >&2; exit 2 ;; esac
shift
packed="" fib25="" small="" more=()
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=1; more+=(--small) ;;
        --packed) packed=$(cd "${2:?a folder}" && pwd) || exit 2; shift ;;
        --fib25) fib25=${2:?a folder}; shift ;;
        --only) break ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
if [ -n "$packed" ]; then
    "$python" "$programs/install.py" "$packed" "$out/venv" || exit 2
    python=$out/venv/bin/python
    export PATH=$out/venv/bin:$PATH
    [ -n "$fib25" ] || fib25=$packed
fi
if [ -z "$small" ] && ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "gpu.sh: no CUDA device: --small runs on the CPU" >&2
    exit 2
fi
[ -z "$fib25" ] || more+=(--fib25 "$fib25")
exec "$python" "$programs/report.py" "$out" "${more[@]}" "$@"

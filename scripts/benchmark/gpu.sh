#!/usr/bin/env bash
# Everything that is measured on a GPU, in one command:
#
#     bash scripts/benchmark/gpu.sh OUT [--small] [--fib25 FOLDER] [--wheels FOLDER]
#
# OUT/figures.jsonl has a line for each section as soon as it ends (name, command, exit code, seconds, output);
# OUT/table.txt is the same to read. Sections that fail do not stop the others; exit code 1 says that one did.
#
# --small   what the CPU can do in a minute, to see that the script works
# --fib25   the folder that holds fib25/img.h5 and fib25/seg.h5; trains on z 0:100 and predicts z 100:140
# --wheels  a folder of wheels for a machine without a network, made elsewhere for its version of Python, here 3.12:
#
#     pip download --only-binary :all: --python-version 3.12 --dest wheels --no-deps tensorboardX cloud-volume h5py ...
set -uo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
out=${1:?usage: gpu.sh OUT [--small] [--fib25 FOLDER] [--wheels FOLDER]}
shift
small="" fib25="" wheels=""
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=1 ;;
        --fib25) fib25=${2:?a folder}; shift ;;
        --wheels) wheels=${2:?a folder}; shift ;;
        *) echo "gpu.sh: $1: --small, --fib25 FOLDER or --wheels FOLDER" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
export PYTHONPATH=$root
[ -z "$wheels" ] || python -m pip install --quiet --no-index --no-deps --find-links "$wheels" "$wheels"/*.whl || exit 2
if [ -z "$small" ] && ! python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "gpu.sh: no CUDA device: --small runs what the CPU can do" >&2
    exit 2
fi
: >"$out/figures.jsonl"
: >"$out/table.txt"
failed=0

# section NAME LIMIT COMMAND...: run it for at most LIMIT seconds and write down what it said
section() {
    local name=$1 limit=$2 code began=$SECONDS
    shift 2
    echo "== $name" | tee -a "$out/table.txt"
    timeout "$limit" "$@" >"$out/last.txt" 2>&1
    code=$?
    [ "$code" = 0 ] || failed=1
    tail -n 40 "$out/last.txt" | tee -a "$out/table.txt"
    echo "-- exit code $code after $((SECONDS - began)) s" | tee -a "$out/table.txt"
    python - "$out" "$name" "$code" "$((SECONDS - began))" "$*" <<'PYTHON'
import json, sys
from pathlib import Path
out, name, code, seconds, command = sys.argv[1:]
row = {"section": name, "command": command, "exit_code": int(code), "seconds": int(seconds)}
row["output"] = Path(out, "last.txt").read_text(errors="replace").splitlines()
with Path(out, "figures.jsonl").open("a") as file:
    file.write(json.dumps(row) + "\n")
PYTHON
}

cd "$root" || exit 2
bench=scripts/benchmark
if [ -n "$small" ]; then
    section step 60 python $bench/training.py --fov 4,32,32 --rounds 1 --only settings
    section loop 60 python $bench/training.py --fov 4,32,32 --rounds 1 --steps 10 --only loop
    section stitched 60 python $bench/inference.py stitched --rounds 1 --patch 4 32 32 --width 4 8
else
    section tests 120 python -m pytest -q -m gpu tests
    section "step 20x256x256" 60 python $bench/training.py --fov 20,256,256 --rounds 5 --only settings
    section "step 16x128x128" 60 python $bench/training.py --fov 16,128,128 --rounds 7 --only settings
    for workers in 2 4 8 16; do
        section "loop, $workers workers" 60 python $bench/training.py --fov 20,256,256 --rounds 1 --steps 50 \
            --only loop --more --num_workers $workers
    done
    section stitched 60 python $bench/inference.py stitched --device cuda --amp --patch 20 256 256
fi
if [ -n "$fib25" ] && [ -z "$small" ]; then
    section learning 150 python $bench/luck.py fib25 --data_dir "$fib25" --out "$out/fib25" --seeds 0
fi
rm -f "$out/last.txt"
exit $failed

#!/usr/bin/env bash
# Makes the environment, trains affinities and mitochondria on synthetic volumes for a few minutes on two CPU cores,
# predicts a volume that was not trained on, scores it, and draws one picture.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

run=experiments/demo
rm -rf $run/models $run/logs $run/forward $run/options.json $run/options.args

echo "== 1/4  a held-out synthetic volume"
python -m deepem synthesize --layout synthetic --ids t2 --size 24,256,256 --data_dir $run/data
echo "== 2/4  training (train.args says how)"
python -m deepem train @$run/train.args
echo "== 3/4  prediction"
python -m deepem forward --exp_name demo --data_dir $run/data --test_ids t2
echo "== 4/4  scores"
python -m deepem evaluate $run/forward/t2_*.h5 --truth $run/data/t2 --json $run/score.json
python scripts/figure.py $run/forward/t2_{affinity,mitochondria}_*.h5 --image $run/data/t2/img.h5 --truth $run/data/t2 \
    --metrics $run/logs/metrics.jsonl --out $run/demo.png

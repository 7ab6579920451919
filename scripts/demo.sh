#!/usr/bin/env bash
# Makes the environment, trains affinities and mitochondria on synthetic volumes for a few minutes on two CPU cores,
# predicts the validation volume and one that was not trained on, segments the latter with the threshold that is best on
# the former, scores it, draws one picture, and writes a report of the run with that picture in it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

run=experiments/demo
rm -rf $run/models $run/logs $run/forward $run/options.{json,args,yaml} $run/t2_segmentation.h5

echo "== 1/6  the validation volume, and one held out"
python -m deepem synthesize --layout synthetic --ids v3 --size 40,320,320 --data_dir $run/data
python -m deepem synthesize --layout synthetic --ids t2 --size 24,256,256 --data_dir $run/data
echo "== 2/6  training (train.args says how)"
python -m deepem train @$run/train.args
echo "== 3/6  prediction"
python -m deepem forward --exp_name demo --data_dir $run/data --test_ids v3 t2
echo "== 4/6  segmentation, its threshold chosen on the validation volume"
tuned=($run/forward/v3_affinity_*.h5) seen=($run/forward/t2_affinity_*.h5)
python -m deepem evaluate --tune_on "${tuned[0]}:$run/data/v3" --test "${seen[0]}:$run/data/t2" --segment agglomerate \
    --json $run/chosen.json --picture $run/chosen.png --image $run/data/t2/img.h5
threshold=$(python -c "import json; print(json.load(open('$run/chosen.json'))[0]['chosen']['threshold'])")
python -m deepem segment "${seen[0]}" --threshold "$threshold" --join_smaller 200 --out $run/t2_segmentation.h5
echo "== 5/6  scores"
python -m deepem evaluate $run/t2_segmentation.h5 --truth $run/data/t2 --top 3
python -m deepem evaluate $run/forward/t2_*.h5 --truth $run/data/t2 --json $run/score.json
python scripts/figure.py $run/forward/t2_{affinity,mitochondria}_*.h5 --segmentation $run/t2_segmentation.h5 \
    --image $run/data/t2/img.h5 --truth $run/data/t2 --metrics $run/logs/metrics.jsonl --out $run/demo.png
echo "== 6/6  report"
python -m deepem report $run

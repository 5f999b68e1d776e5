#!/usr/bin/env bash
# Rates and utilisation of encode, forecasting, tuning and evaluation on one GPU, and its answers against the CPU's. Each
# step takes minutes, under ten; name one (tiny, smollm2) to run it alone. DEVICE=cpu SECONDS_EACH=0.2 ECGS=2 BATCH=1 is a
# small run without a GPU. Figures go to OUT, one JSON file a step.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
out=${OUT:-.cache/gpu}
mkdir -p "$out"
step() {
    "$python" -m heartllm.performance.rates --device "${DEVICE:-cuda}" --recipe "$1" --seconds "${SECONDS_EACH:-20}" \
        --ecgs "${ECGS:-64}" ${BATCH:+--batch "$BATCH"} --precision bf16 --out "$out/$1.json"
}
for name in "${@:-tiny}"; do
    if "$python" -c "import sys; from heartllm.recipe import load_recipe; load_recipe(sys.argv[1])" "$name" 2>/dev/null; then
        step "$name"
    else
        echo "$name: this version has no such recipe" >&2
        exit 2
    fi
done

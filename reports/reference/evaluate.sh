#!/usr/bin/env bash
# Evaluates the reference checkpoint: real PTB-XL test recordings where HEARTLLM_DATA has them, and freshly drawn synthetic
# ECGs (seed 2026, which no training uses). Copies the tables beside this script, into results/.
#
#   reports/reference/evaluate.sh [FOLDER]      default runs/reference; works on reports/reference/checkpoint
set -euo pipefail
cd "$(dirname "$0")/../.."
run="${1:-runs/reference}"
checkpoint=reports/reference/checkpoint
results=reports/reference/results
mkdir -p "$run" "$results"

heartllm data synth a --recordings 2000 --seed 2026 --out "$run/fresh"
heartllm data synth b --recordings 2000 --seed 2026 --out "$run/fresh"
for site in synthetic_a synthetic_b; do
  heartllm-eval run --model heartllm --model_args "checkpoint=$checkpoint" --tasks "${site}_qa,${site}_reports" \
    --control all --data_root "$run/fresh" --output_path "$run/eval/$site"
  cp "$run/eval/$site/results.md" "$results/$site.md"
done

if [[ -n "${HEARTLLM_DATA:-}" && -d "$HEARTLLM_DATA/ptbxl" ]]; then
  heartllm-eval run --model heartllm --model_args "checkpoint=$checkpoint" --tasks ptbxl_qa,ptbxl_reports \
    --control all --output_path "$run/eval/ptbxl"
  cp "$run/eval/ptbxl/results.md" "$results/ptbxl.md"
  heartllm-eval compare "$run/eval/ptbxl:model" "$run/eval/ptbxl:blind" --examples 0 --output_path "$run/eval/compare"
  cp "$run/eval/compare/compare.md" "$results/ptbxl_against_blind.md"
  heartllm tokenize --dataset ptbxl --codec "$checkpoint" --out "$run/eval/tokens"
  heartllm gap --dataset ptbxl --checkpoint "$checkpoint" --tokens "$run/eval/tokens" --out "$results/reading_gap.md"
  heartllm codec-report --dataset ptbxl --codec "$checkpoint" --out "$results"
  heartllm data agreement > "$results/question_agreement.md"
fi

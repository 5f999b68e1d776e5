#!/usr/bin/env bash
# Trains the reference checkpoint: two synthetic hospitals, and PTB-XL's training recordings where HEARTLLM_DATA has them.
# Every stage can be stopped and continues when this script is started again. About 2.7 hours of one core, and 1.7 more for the blind control.
#
#   reports/reference/train.sh [FOLDER]      default runs/reference; the result lies in FOLDER/checkpoint
set -euo pipefail
cd "$(dirname "$0")/../.."
run="${1:-runs/reference}"
recipe="${RECIPE:-tiny}"
mkdir -p "$run"

heartllm data synth a --recordings "${SITE_A:-5000}" --seed 7 --out "$run/data"
heartllm data synth b --recordings "${SITE_B:-2500}" --seed 7 --out "$run/data"
datasets=(-d synthetic-a -d synthetic-b)
if [[ -n "${HEARTLLM_DATA:-}" && -d "$HEARTLLM_DATA/ptbxl" ]]; then
  datasets=(-d ptbxl "${datasets[@]}")
else
  echo "HEARTLLM_DATA names no folder with ptbxl/: training on synthetic recordings alone" >&2
fi
common=("${datasets[@]}" --data_root "$run/data" --recipe "$recipe")

heartllm tokenizer "${common[@]}" -o "$run/tokenizer"
heartllm tokenize "${common[@]}" --codec "$run/tokenizer" -o "$run/tokens"
heartllm pretrain "${common[@]}" --tokens "$run/tokens" --codec "$run/tokenizer" -o "$run/forecast"
heartllm tune "${common[@]}" --tokens "$run/tokens" --from "$run/forecast" -o "$run/checkpoint"
# The control: the same language model tuned on the same questions, never shown an ECG.
heartllm tune "${common[@]}" --tokens "$run/tokens" --from "$run/tokenizer" --blind -o "$run/checkpoint/blind"
echo "done: $run/checkpoint"

#!/usr/bin/env bash
# Measures what the figures are drawn from, into reports/figures/data; then run `heartllm-eval report`.
#
#   reports/figures/measure.sh WORK [PART...]     WORK: the plan's work folder of one size, such as runs/paper/small
#
# Parts: framework, codec, denoising, embeddings, attention, forecast, shift, learning, scaling. All without names.
# HEARTLLM_DATA names the folder that holds ptbxl/, ecgqa/ and reports/. Embeddings need the trained rows in WORK; curves
# need their frozen runs; the others ask the reference checkpoint.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=${1:?name the work folder, such as runs/paper/small}
shift
parts=("$@")
[ $# -gt 0 ] || parts=(framework codec denoising embeddings attention forecast shift learning scaling)
data=$root/figures/data
reference=checkpoint=$root/reference/checkpoint
fresh=(--data_root "$work/fresh")

measure() { heartllm-eval measure "$@" -o "$data"; }
row() { echo "checkpoint=$work/models/$1/joint/seed-0/checkpoint"; }
# All frozen trainings of a row on a suite, at one place of a curve.
runs() {
    local place=$1 row=$2 suite=$3 run
    for run in "$root"/runs/"$row"/seed-*/"$suite"; do [ -d "$run" ] && printf -- '--run\n%s=%s\n' "$place" "$run"; done
}
curve() { # kind, suites, then place=row ...
    local kind=$1 suites=$2 suite point
    shift 2
    for suite in $suites; do
        local points=()
        for point in "$@"; do mapfile -t -O "${#points[@]}" points < <(runs "${point%%=*}" "${point#*=}" "$suite"); done
        measure curve "$kind" "${points[@]}"
    done
}

for part in "${parts[@]}"; do
    echo "== $part"
    case $part in
        framework) measure framework -a "$reference" ;;
        codec)
            measure codec -c "${reference#*=}" -d ptbxl
            measure codec -c "${reference#*=}" -d synthetic-a "${fresh[@]}" --data_root "$work/data"
            ;;
        denoising) measure denoising -c "${reference#*=}" ;;
        embeddings)
            measure embeddings -a "$(row heartllm),untrained=true" -d synthetic-a "${fresh[@]}"
            for each in heartllm=HeartLLM test=TEST time_llm=Time-LLM clip=CLIP; do
                measure embeddings -a "$(row "${each%%=*}")" --system "${each#*=}" -d synthetic-a "${fresh[@]}"
            done
            ;;
        attention) measure attention -a "$reference" -d synthetic-a "${fresh[@]}" -n 12 --draws 2 --stride 5 ;;
        forecast)
            measure forecast -a "$reference" -d ptbxl -n 100
            measure forecast -a "$reference" -d synthetic-a -n 100 "${fresh[@]}"
            ;;
        shift) measure shift -M heartllm -a "$reference" -t ptbxl_qa -L 400 --runs "$work/shifts" --batch_size 64 ;;
        learning) curve learning "ptbxl_qa synthetic_a_qa" 300=recordings_100 1200=recordings_400 4004=heartllm ;;
        scaling) curve scaling "ptbxl_qa synthetic_a_qa" 0.42e6=narrow 1.42e6=heartllm 3.0e6=wide ;;
        *) echo "error: no part $part" >&2; exit 2 ;;
    esac
done

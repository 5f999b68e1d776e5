"""Scoring reports: how much faster than a plain loop over other people's programs, and 40,000 of them with intervals.

The corpus: the English reports of PTB-XL where HEARTLLM_DATA has them, otherwise invented ones from words of such
reports. A reference is a report with some words moved, exchanged or left out; a prediction is such a copy of the same
report, or of another. Few pairs come twice, so that nothing is gained by remembering pairs (nothing is remembered of
one). Run as a program, this file scores the corpus and prints seconds and memory.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heartllm_eval.metrics import DEFAULT_METRICS, get_metric
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import Options, Scored, evaluate, load_metrics, score_system

ROOT = Path(__file__).resolve().parents[2]
REPORTS, PATIENTS, RESAMPLES = 40_000, 18_000, 10_000
PAIRS, PLAIN, ROUNDS, FASTER = 8192, 500, 12, 20.0
MOST_SECONDS, MOST_BYTES = 60.0, 2e9
INVENTED = """sinus rhythm normal ekg left axis deviation t wave abnormal inferior infarct possible old block
first degree av bradycardia qrs prolonged otherwise low voltage atrial fibrillation st segment depression"""


def _reports() -> list[str]:
    root = Path(os.environ.get("HEARTLLM_DATA") or ROOT.parent / "shared" / "data")
    files = sorted((root / "reports" / "ptbxl").glob("*.json"))
    if files:
        return [row["report"] for path in files for row in json.loads(path.read_text(encoding="utf-8"))]
    generator = random.Random(1)
    return [" ".join(generator.choices(INVENTED.split(), k=generator.randint(3, 25))) for _ in range(500)]


def corpus(count: int) -> tuple[list[Prediction], list[Request]]:
    generator, reports = random.Random(7), _reports()
    vocabulary = sorted({word for report in reports for word in report.split()})

    def edited(report: str) -> str:
        words = report.split()
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(len(words))
            match generator.randrange(4):
                case 0:
                    words[place] = generator.choice(vocabulary)
                case 1:
                    words.insert(generator.randrange(len(words)), words.pop(place))
                case 2 if len(words) > 3:
                    del words[place]
                case _:
                    words.insert(place, generator.choice(vocabulary))
        return " ".join(words)

    predictions, requests = [], []
    for index in range(count):
        report = generator.choice(reports)
        said = edited(report if generator.random() < 0.5 else generator.choice(reports))
        slices = {
            "sex": generator.choice(("female", "male")),
            "age": generator.choice(("0-39", "40-59", "60-79", "80+")),
        }
        patient = f"p{generator.randrange(PATIENTS)}"
        requests.append(Request(str(index), "report", cluster=patient, references=(edited(report),), slices=slices))
        predictions.append(Prediction(str(index), said))
    return predictions, requests


def plain_loop(wordnet: Any) -> Callable[[str, str], None]:
    """What a script does for one pair: the scores of the `heartllm` profile by NLTK and `rouge`."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from nltk.translate.meteor_score import meteor_score
    from rouge import Rouge

    rouge, smooth = Rouge(), SmoothingFunction().method1
    all_weights = ((1.0,), (0.5, 0.5), (0.33, 0.33, 0.33), (0.25, 0.25, 0.25, 0.25))

    def score(hypothesis: str, reference: str) -> None:
        ours, theirs = hypothesis.split(), reference.split()
        for weights in all_weights:
            sentence_bleu([theirs], ours, weights=weights, smoothing_function=smooth)
        meteor_score([theirs], ours, wordnet=wordnet)
        rouge.get_scores(hypothesis, reference)

    return score


@pytest.mark.benchmark(group="scoring")
def test_reports_are_scored_many_times_faster_than_in_a_plain_loop(race: Any) -> None:
    pytest.importorskip("rouge")
    predictions, requests = corpus(PAIRS)
    metrics = [get_metric(name) for name in ("bleu.heartllm", "meteor.heartllm", "rouge.heartllm")]
    if metrics[1].name != "meteor.heartllm":
        pytest.skip("no WordNet: run heartllm-eval fetch-wordnet")
    score = plain_loop(metrics[1]._wordnet._corpus)  # type: ignore[attr-defined]
    pairs = [(part.text, request.references[0]) for part, request in zip(predictions, requests, strict=True)]

    def ours() -> None:
        for metric in metrics:
            metric.matrix(predictions, requests)

    def theirs() -> None:
        for pair in pairs[:PLAIN]:
            score(*pair)

    race(
        "report metrics (BLEU, METEOR, ROUGE)",
        unit="pair",
        ours=ours,
        plain=theirs,
        plain_is="a loop over nltk and rouge",
        units=PAIRS,
        plain_units=PLAIN,
        rounds=ROUNDS,
        least=FASTER,
        aim=20.0,
    )


@pytest.mark.slow
def test_forty_thousand_reports_with_intervals() -> None:
    """Processor seconds on one core are counted: on an idle machine with two it takes no longer, whatever runs here."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True, env=environment)
    found = json.loads(done.stdout)
    print(done.stdout)
    assert found["distinct_pairs"] > 0.9 * REPORTS
    assert found["resamples"] == 10_000
    assert found["processor_s"] < MOST_SECONDS, found
    assert found["peak_bytes"] < MOST_BYTES, found


def main() -> None:
    predictions, requests = corpus(REPORTS)
    pairs = {(part.text, request.references[0]) for part, request in zip(predictions, requests, strict=True)}
    start, processor = time.monotonic(), time.process_time()
    metrics = load_metrics(DEFAULT_METRICS["report"])
    steps, given = {}, {part.id: part for part in predictions}
    statistics: dict[str, Any] = {}
    for metric in metrics:
        began = time.process_time()
        statistics.update(score_system("model", requests, given, [metric]).statistics)
        steps[metric.name] = round(time.process_time() - began, 2)
    began = time.process_time()
    result = evaluate(
        "reports",
        requests,
        [Scored("model", statistics)],
        metrics,
        slices=("sex", "age"),
        options=Options(resamples=RESAMPLES),
    )
    steps["bootstrap"] = round(time.process_time() - began, 2)
    print(
        json.dumps(
            {
                "reports": len(requests),
                "distinct_pairs": len(pairs),
                "patients": len({request.cluster for request in requests}),
                "words_a_report": round(
                    sum(len(request.references[0].split()) for request in requests) / len(requests), 1
                ),
                "resamples": RESAMPLES,
                "figures": len(result.figures),
                "seconds": round(time.monotonic() - start, 1),
                "processor_s": round(time.process_time() - processor, 1),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "processor_s_by_step": steps,
            }
        )
    )


if __name__ == "__main__":
    main()

"""From frozen runs to the points of a curve: a learning curve, or scaling with the size of the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from heartllm.errors import UsageError
from heartllm.writing import write_whole
from heartllm_eval import scoring
from heartllm_eval import statistics as stats
from heartllm_eval.figures.curves import rows
from heartllm_eval.figures.scores import Score, read_scores
from heartllm_eval.figures.style import csv_text
from heartllm_eval.frozen import Frozen
from heartllm_eval.paper.evidence import check_alike
from heartllm_eval.scoring import Options, Scored

# kind of suite -> panel -> (figure, slice)
COLUMNS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "qa": {name: ("exact_match.strict", f"question_type=single-{name}") for name in ("verify", "choose", "query")},
    "report": {
        "BLEU-4": ("bleu.standard/bleu4", "all"),
        "ROUGE-L": ("rouge.standard/rougeL", "all"),
        "clinical F1": ("clinical/f1", "all"),
    },
}
FLOOR = "blind"


def points(
    placed: Sequence[tuple[float, Frozen]], system: str, *, floor: str = FLOOR, options: Options | None = None
) -> list[Score]:
    """The scores of frozen runs of one suite at their places; runs at one place are seeds and are averaged.

    Intervals are by patient, of the mean over these trainings. The control `floor` of the first run that has it becomes
    a level without a place.

    Raises:
        UsageError: for no run, and for runs of other suites, samples or ways of scoring.
    """
    if not placed:
        raise UsageError("no run", where="--run", remedy="Give a place and a frozen run: --run 1000=FOLDER.")
    check_alike([run for _, run in placed], placed[0][1].folder)
    options = options or Options()
    found = []
    for at in sorted({place for place, _ in placed}):
        runs = [run for place, run in placed if place == at]
        models = [Scored(f"seed {n}", run.system("model").statistics) for n, run in enumerate(runs)]
        found += _scores(runs[0], models, system, at, options)
    with_floor = next((run for _, run in placed if any(part.system == floor for part in run.systems)), None)
    if with_floor is not None:
        found += _scores(with_floor, [with_floor.system(floor)], floor, None, options)
    return found


def _scores(run: Frozen, systems: Sequence[Scored], name: str, at: float | None, options: Options) -> list[Score]:
    """The score of each column, the mean over `systems`, with its interval."""
    known = {metric.full_name(figure): (metric, i) for metric in run.metrics for i, figure in enumerate(metric.figures)}
    columns = COLUMNS.get(str(run.about.get("kind")), {})
    masks = scoring.slice_masks(run.requests, ["question_type"])
    clusters = stats.number_clusters(request.cluster for request in run.requests)
    drawing = stats.Draws(len(np.unique(clusters)), resamples=options.resamples, seed=options.seed)
    found = []
    for panel, (figure, part) in columns.items():
        if figure not in known or part not in masks:
            continue
        metric, column = known[figure]
        drawn, values = scoring.resample(metric, systems, {part: masks[part]}, clusters, drawing)
        value = float(np.mean([values[scored.system, part][column] for scored in systems]))
        draws = np.mean([drawn[scored.system, part][:, column] for scored in systems], axis=0)
        patients = len(np.unique(clusters[masks[part]]))
        between = stats.interval(value, draws, clusters=patients, confidence=options.confidence)
        if not np.isnan(value):
            found.append(Score(name, panel, value, between.low, between.high, len(systems), at))
    return found


def merge(path: Path, scores: Sequence[Score]) -> Path:
    """Writes scores to a curve's CSV file; other systems and metrics that are there already stay."""
    ours = {(score.system, score.metric) for score in scores}
    there = read_scores(path) if path.is_file() else []
    kept = [score for score in there if (score.system, score.metric) not in ours]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, csv_text(rows([*kept, *scores]), where=path))
    return path

"""What is lost from one hospital to another, by cause, as far as two runs of one model can tell.

The drop in a share of right answers is split exactly into five parts (Kitagawa 1955; in economics Oaxaca 1973 and
Blinder 1973). A cell is one thing asked with one right answer: template, attribute and answer (of a choice between two
attributes only template and answer, since pairs hardly ever recur). With r a cell's score, w its share of the requests,
and dashes for the requests whose answer was seen in training:

    unseen answers     (R'_away - R_away) - (R'_home - R_home)
    asked at home only R'_home - R''_home      two dashes: the cells that both have
    asked away only    R''_away - R'_away
    case mix           sum over common cells (w_home - w_away) (r_home + r_away) / 2
    within             sum over common cells (w_home + w_away) / 2 (r_home - r_away)

`within` is what the same question with the same answer loses: waveform, noise, machine, labelling, wording. How much of
that a single cause makes is told by variants: runs on the same away recordings with that one cause set to home's.
Intervals resample the patients of both hospitals. In small cells they are rough: a cell that a resample misses changes
its common ground.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heartllm.errors import UsageError
from heartllm_eval import statistics as stats
from heartllm_eval.comparison.sides import Side
from heartllm_eval.metrics.base import Array, MeanMetric, Metric
from heartllm_eval.ood import paired_samples
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import Options, evaluate, score_system
from heartllm_eval.unseen import CLASS, COMBINATION, SLICE

PARTS = ("drop", "unseen answers", "asked at home only", "asked away only", "case mix", "within")
CHUNK = 250  # resamples held at once
Cell = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One cause.

    Attributes:
        name: one of `PARTS`, a variant's name, or a figure of a report metric.
        value, low, high: points; a part of the drop, or what a variant wins back (negative: loses further).
        home, away: the two scores that it is the difference of, where there are two.
        n, patients: of the away run.
        p: of variants, as in comparisons.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    home: float | None = None
    away: float | None = None
    n: int = 0
    patients: int = 0
    p: float | None = None


@dataclass(frozen=True)
class Loss:
    """The whole answer.

    Attributes:
        metric: of the parts. parts: in the order of `PARTS`; for reports, one a figure.
        common: share of home's and of away's requests that lie in cells of both.
    """

    home: Mapping[str, Any]
    away: Mapping[str, Any]
    metric: str
    parts: tuple[Part, ...]
    variants: tuple[Part, ...] = ()
    common: tuple[float, float] | None = None


def cell_of(request: Request) -> Cell:
    """What is asked and what is right, whatever the recording."""
    what = () if "choose" in request.question_type else request.attribute
    return (str(request.template_id), *what, "->", *sorted(request.references))


def split_drop(home: tuple[Array, Array], away: tuple[Array, Array], seen: Array) -> Array:
    """(..., 6) parts of the drop, in points, from counts and sums of scores (..., cells) of both sides.

    Args:
        home, away: requests, and the sum of their scores (0 to 1), of each cell.
        seen: (cells,) 1 where the answer was seen in training, else 0.
    """
    (home_n, home_s), (away_n, away_s) = home, away
    every, common = np.ones_like(seen), ((seen > 0) & (home_n > 0) & (away_n > 0)).astype(np.float64)

    def score(counts: Array, sums: Array, mask: Array) -> Array:
        total = (counts * mask).sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Array = np.where(total > 0, (sums * mask).sum(-1) / total, np.nan)
        return found

    home_all, away_all = score(home_n, home_s, every), score(away_n, away_s, every)
    home_seen, away_seen = score(home_n, home_s, seen), score(away_n, away_s, seen)
    home_common, away_common = score(home_n, home_s, common), score(away_n, away_s, common)
    with np.errstate(invalid="ignore", divide="ignore"):
        w_home = home_n * common / (home_n * common).sum(-1, keepdims=True)
        w_away = away_n * common / (away_n * common).sum(-1, keepdims=True)
        r_home = np.where(common > 0, home_s / np.maximum(home_n, 1), 0.0)
        r_away = np.where(common > 0, away_s / np.maximum(away_n, 1), 0.0)
    parts = (
        home_all - away_all,
        (away_seen - away_all) - (home_seen - home_all),
        home_seen - home_common,
        away_common - away_seen,
        ((w_home - w_away) * (r_home + r_away)).sum(-1) / 2,
        ((w_home + w_away) * (r_home - r_away)).sum(-1) / 2,
    )
    return 100.0 * np.stack(parts, axis=-1)


class _Counts:
    """One side's requests and scores by patient and cell."""

    def __init__(self, requests: Sequence[Request], scores: Array, cells: Mapping[Cell, int]) -> None:
        rows = stats.number_clusters(request.cluster or request.id for request in requests)
        self.patients = int(rows.max()) + 1
        columns = np.array([cells[cell_of(request)] for request in requests])
        self.counts = np.zeros((self.patients, len(cells)))
        self.sums = np.zeros((self.patients, len(cells)))
        np.add.at(self.counts, (rows, columns), 1.0)
        np.add.at(self.sums, (rows, columns), scores)

    def total(self) -> tuple[Array, Array]:
        """(cells,) of the patients as they are."""
        return self.counts.sum(0), self.sums.sum(0)

    def drawn(self, options: Options, seed: int) -> Iterator[tuple[Array, Array]]:
        """(`CHUNK`, cells) of resampled patients at a time, so that two sides can be read side by side."""
        width, draws = self.counts.shape[1], stats.Draws(self.patients, resamples=options.resamples, seed=seed)
        held = np.zeros((0, 2 * width))
        for part in draws.sums(np.hstack([self.counts, self.sums])):
            held = np.concatenate([held, part])
            while len(held) >= CHUNK:
                yield held[:CHUNK, :width], held[:CHUNK, width:]
                held = held[CHUNK:]
        if len(held):
            yield held[:, :width], held[:, width:]


def measure(
    home: Side,
    away: Side,
    tasks: tuple[str, str],
    metrics: Sequence[Metric],
    options: Options,
    *,
    variants: Mapping[str, Side] | None = None,
) -> Loss:
    """Splits the drop from `home` to `away`, and adds the variants.

    Args:
        home, away: the same model on two hospitals.
        tasks: the task of each.
        metrics: of questions the first is split; of reports every figure of all is given.
        variants: name -> a run on the away recordings with one cause set to home's.

    Raises:
        UsageError: for two models, tasks of two kinds, or a metric that is no mean over samples.
    """
    check_same_model(home, away)
    kinds = {side.tasks[task].get("kind") for side, task in zip((home, away), tasks, strict=True)}
    if len(kinds) > 1:
        raise UsageError("one is questions, one reports", where=", ".join(tasks), remedy="Name runs of one kind.")
    asked = [list(side.requests[task]) for side, task in zip((home, away), tasks, strict=True)]
    said = [side.predictions[task] for side, task in zip((home, away), tasks, strict=True)]
    about = [describe(side, task, requests) for side, task, requests in zip((home, away), tasks, asked, strict=True)]
    found = tuple(_variant(name, side, away, tasks[1], metrics[0], options) for name, side in (variants or {}).items())
    if kinds == {"report"}:
        return Loss(about[0], about[1], "", tuple(_report_parts(asked, said, metrics, options)), found)
    metric = metrics[0]
    if not isinstance(metric, MeanMetric) or len(metric.figures) != 1:
        raise UsageError(
            f"{metric.name} is no mean over samples", where="--metric", remedy="Take exact_match.strict, for one."
        )
    parts, common = _qa_parts(asked, said, metric, options)
    return Loss(about[0], about[1], metric.name, parts, found, common)


def check_same_model(home: Side, away: Side) -> None:
    """Refuses runs of two models: what differs between them is no loss of a shift.

    Raises:
        UsageError: naming both.
    """
    marks = [_mark(side) for side in (home, away)]
    if marks[0] != marks[1]:
        raise UsageError(
            f"two models: {str(marks[0])[:40]} at home, {str(marks[1])[:40]} away",
            where=str(away.path),
            remedy="Name two runs of one checkpoint.",
        )


def _mark(side: Side) -> Any:
    about = side.about
    return dict(about.get("model") or {}).get("fingerprint") or (about.get("kind"), about.get("model_args"))


def describe(side: Side, task: str, requests: Sequence[Request]) -> dict[str, Any]:
    """What a table says of one side."""
    known = side.tasks[task]
    return {
        "run": str(side.path),
        "task": task,
        "title": known.get("title") or task,
        "dataset": known.get("dataset"),
        "synthetic": known.get("synthetic"),
        "n": len(requests),
        "patients": len({request.cluster or request.id for request in requests}),
        "unseen": sum(request.slice(SLICE) in (COMBINATION, CLASS) for request in requests),
        "fingerprint": dict(side.about.get("model") or {}).get("fingerprint"),
        "trained_on": dict(side.about.get("model") or {}).get("trained_on"),
    }


def _qa_parts(
    asked: Sequence[Sequence[Request]], said: Sequence[Mapping[str, Prediction]], metric: Metric, options: Options
) -> tuple[tuple[Part, ...], tuple[float, float]]:
    names = dict.fromkeys(cell_of(request) for requests in asked for request in requests)
    cells = {cell: number for number, cell in enumerate(names)}
    seen = np.ones(len(cells))
    for requests in asked:
        for request in requests:
            if request.slice(SLICE) in (COMBINATION, CLASS):
                seen[cells[cell_of(request)]] = 0.0
    sides = []
    for requests, answers in zip(asked, said, strict=True):
        rows = score_system("model", requests, answers, [metric]).statistics[metric.name]
        sides.append(_Counts(requests, rows[:, 0] / np.maximum(rows[:, -1], 1), cells))
    home, away = sides[0].total(), sides[1].total()
    values = split_drop(home, away, seen)
    both_drawn = zip(*(side.drawn(options, options.seed + number) for number, side in enumerate(sides)), strict=True)
    draws = np.concatenate([split_drop(one, two, seen) for one, two in both_drawn])
    scores = [100.0 * float(sums.sum() / counts.sum()) for counts, sums in (home, away)]
    clusters = min(side.patients for side in sides)
    parts = []
    for column, name in enumerate(PARTS):
        between = stats.interval(
            float(values[column]), draws[:, column], clusters=clusters, confidence=options.confidence
        )
        part = Part(name, between.value, between.low, between.high, n=len(asked[1]), patients=sides[1].patients)
        parts.append(replace(part, home=scores[0], away=scores[1]) if name == "drop" else part)
    both = (seen > 0) & (home[0] > 0) & (away[0] > 0)
    return tuple(parts), (float(home[0][both].sum() / home[0].sum()), float(away[0][both].sum() / away[0].sum()))


def _report_parts(
    asked: Sequence[Sequence[Request]],
    said: Sequence[Mapping[str, Prediction]],
    metrics: Sequence[Metric],
    options: Options,
) -> list[Part]:
    """Of each figure, home minus away. Words (BLEU, ROUGE) fall with style and content, clinical F1 with content."""
    found = []
    for metric in metrics:
        points, drawn, patients = [], [], []
        for number, (requests, answers) in enumerate(zip(asked, said, strict=True)):
            rows = score_system("model", requests, answers, [metric]).statistics[metric.name]
            clusters = stats.number_clusters(request.cluster or request.id for request in requests)
            count = int(clusters.max()) + 1
            totals = stats.sum_by_cluster(rows, clusters, count)
            draws = stats.Draws(count, resamples=options.resamples, seed=options.seed + number)
            points.append(metric.score(totals.sum(0)))
            drawn.append(np.concatenate([metric.score(part) for part in draws.sums(totals)]))
            patients.append(count)
        for column, figure in enumerate(metric.figures):
            value = float(points[0][column] - points[1][column])
            between = stats.interval(
                value, drawn[0][:, column] - drawn[1][:, column], clusters=min(patients), confidence=options.confidence
            )
            hidden = figure in metric.without_interval
            found.append(
                Part(
                    metric.full_name(figure),
                    value,
                    None if hidden else between.low,
                    None if hidden else between.high,
                    float(points[0][column]),
                    float(points[1][column]),
                    len(asked[1]),
                    patients[1],
                )
            )
    return [part for part in found if not math.isnan(part.value)]


def _variant(name: str, side: Side, away: Side, task: str, metric: Metric, options: Options) -> Part:
    """What the away run wins with one cause set to home's: paired by sample, resampled by patient."""
    check_same_model(away, side)
    if task not in side.tasks:
        raise UsageError(f"did not run {task}", where=str(side.path), remedy="Run the same suite on the variant.")
    requests, scored = paired_samples([side, away], task, [metric])
    result = evaluate(task, requests, scored, [metric], compare=metric.name, options=options)
    part = next(part for part in result.differences if part.slice == "all")
    return Part(
        name,
        math.nan if part.value is None else part.value,
        part.low,
        part.high,
        part.model_value,
        part.control_value,
        part.n,
        part.clusters,
        part.p,
    )

"""From predictions to figures: statistics once per sample, then sums, resamples and tests over the stored numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from heartllm_eval import statistics as stats
from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.base import Array, Metric
from heartllm_eval.schema import Difference, Figure, Prediction, Request


@dataclass(frozen=True)
class Scored:
    """One system's answers to one task, in the order of the requests.

    Attributes:
        statistics: metric name -> (samples, width).
    """

    system: str
    statistics: Mapping[str, Array]


@dataclass(frozen=True)
class Options:
    """How intervals are made."""

    resamples: int = stats.RESAMPLES
    confidence: float = stats.CONFIDENCE
    seed: int = 0


@dataclass
class Result:
    """Figures and differences of one task (Holm is applied later, over the whole run)."""

    figures: list[Figure] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def load_metrics(names: Sequence[str]) -> list[Metric]:
    """The metrics called `names`."""
    return [get_metric(name) for name in names]


def sample_statistics(metric: Metric, prediction: Prediction, request: Request) -> tuple[float, ...]:
    """One sample's statistics. A prediction that failed is scored as an empty text, so as wrong."""
    return metric.statistics("" if prediction.error else prediction.text, request)


def score_system(
    system: str,
    requests: Sequence[Request],
    predictions: Mapping[str, Prediction],
    metrics: Sequence[Metric],
    *,
    progress: Callable[[], None] = lambda: None,
) -> Scored:
    """Statistics of every metric on every request; a request without a prediction is scored as an empty text."""
    rows: dict[str, Array] = {metric.name: np.zeros((len(requests), metric.width)) for metric in metrics}
    for index, request in enumerate(requests):
        prediction = predictions.get(request.id) or Prediction(request.id, "", error="no prediction")
        for metric in metrics:
            rows[metric.name][index] = sample_statistics(metric, prediction, request)
        progress()
    return Scored(system, rows)


def slice_masks(
    requests: Sequence[Request], slices: Sequence[str]
) -> dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """ "all" and every "name=value" that occurs -> which requests it holds; by name, then value."""
    masks = {"all": np.ones(len(requests), dtype=np.bool_)}
    for name in slices:
        values = [request.slice(name) for request in requests]
        for value in sorted(set(values)):
            masks[f"{name}={value}"] = np.array([other == value for other in values], dtype=np.bool_)
    return masks


def evaluate(
    task: str,
    requests: Sequence[Request],
    systems: Sequence[Scored],
    metrics: Sequence[Metric],
    *,
    slices: Sequence[str] = (),
    compare: str | None = None,
    options: Options | None = None,
) -> Result:
    """All figures of a task with intervals, and the differences of the first system to each of the others.

    Args:
        task: the suite's name.
        requests: what was asked, in the order of the statistics.
        systems: the model first, then its controls.
        metrics: what `systems` were scored with.
        slices: what to break down by, beside "all".
        compare: the name of the metric that differences are taken of (every figure of it), over all requests and by
            question type; none without it. Smaller slices are shown but not tested: Holm's correction would pay for it.
        options: resamples, confidence, seed.
    """
    options = options or Options()
    result = Result()
    masks = slice_masks(requests, slices)
    names = [request.cluster or request.id for request in requests]
    order = {name: row for row, name in enumerate(dict.fromkeys(names))}
    rows = np.array([order[name] for name in names], dtype=np.int64)
    for metric in metrics:
        draws, values = _resample(metric, systems, masks, rows, len(order), options)
        for label, mask in masks.items():
            clusters = len(np.unique(rows[mask]))
            for system in systems:
                counted = _counted(metric, system.statistics[metric.name][mask])
                for column, figure in enumerate(metric.figures):
                    key = (system.system, label)
                    found = stats.interval(
                        float(values[key][column]),
                        draws[key][:, column],
                        clusters=clusters,
                        confidence=options.confidence,
                    )
                    result.figures.append(
                        Figure(
                            task=task,
                            system=system.system,
                            metric=metric.full_name(figure),
                            slice=label,
                            value=_number(found.value),
                            low=found.low,
                            high=found.high,
                            n=counted,
                            clusters=clusters,
                            confidence=options.confidence,
                        )
                    )
            if compare == metric.name and (label == "all" or label.startswith("question_type=")):
                for control in systems[1:]:
                    result.differences += _differences(
                        task, metric, systems[0], control, label, mask, clusters, draws, values, options
                    )
    return result


def _resample(
    metric: Metric,
    systems: Sequence[Scored],
    masks: Mapping[str, np.ndarray[tuple[int], np.dtype[np.bool_]]],
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    clusters: int,
    options: Options,
) -> tuple[dict[tuple[str, str], Array], dict[tuple[str, str], Array]]:
    """Bootstrap scores (resamples, figures) and scores (figures,) by system and slice, all from the same draws."""
    keys = [(system.system, label) for system in systems for label in masks]
    totals: Array = np.zeros((clusters, len(keys), metric.width))
    for position, (system, label) in enumerate((system, label) for system in systems for label in masks):
        np.add.at(totals[:, position], rows[masks[label]], system.statistics[metric.name][masks[label]])
    point = metric.score(totals.sum(axis=0))
    flat = totals.reshape(clusters, len(keys) * metric.width)
    parts = [
        metric.score(part.reshape(part.shape[0], len(keys), metric.width))
        for part in stats.resample_totals(flat, resamples=options.resamples, seed=options.seed)
    ]
    drawn = np.concatenate(parts) if parts else np.zeros((0, len(keys), len(metric.figures)))
    return {key: drawn[:, i] for i, key in enumerate(keys)}, {key: point[i] for i, key in enumerate(keys)}


def _differences(
    task: str,
    metric: Metric,
    system: Scored,
    control: Scored,
    label: str,
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]],
    clusters: int,
    draws: Mapping[tuple[str, str], Array],
    values: Mapping[tuple[str, str], Array],
    options: Options,
) -> list[Difference]:
    found = []
    ours, theirs = (system.system, label), (control.system, label)
    counted = _counted(metric, system.statistics[metric.name][mask])
    for column, figure in enumerate(metric.figures):
        delta = draws[ours][:, column] - draws[theirs][:, column]
        value = float(values[ours][column] - values[theirs][column])
        between = stats.interval(value, delta, clusters=clusters, confidence=options.confidence)
        test, only_model, only_control = "bootstrap", None, None
        if metric.binary:
            right, other = (part.statistics[metric.name][mask][:, 0] > 0 for part in (system, control))
            p, only_model, only_control = stats.mcnemar(right.tolist(), other.tolist())
            test = "mcnemar"
        else:
            p = stats.paired_bootstrap_p(value, delta)
        found.append(
            Difference(
                task=task,
                system=system.system,
                control=control.system,
                metric=metric.full_name(figure),
                slice=label,
                value=_number(value),
                low=between.low,
                high=between.high,
                p=_number(p),
                p_holm=None,
                test=test,
                n=counted,
                clusters=clusters,
                only_model=only_model,
                only_control=only_control,
            )
        )
    return found


def correct_for_many(differences: Sequence[Difference]) -> list[Difference]:
    """Adds Holm's corrected p over all the differences given."""
    adjusted = stats.holm([math.nan if part.p is None else part.p for part in differences])
    return [replace(part, p_holm=_number(p)) for part, p in zip(differences, adjusted, strict=True)]


def _counted(metric: Metric, rows: Array) -> int:
    # A sample that a metric does not apply to has only zeros.
    return int(np.sum(rows[:, -1] > 0)) if len(rows) else 0


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value

"""From predictions to figures: statistics once per sample, then sums, resamples and tests over the stored numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from heartllm_eval import binomial
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

    def describe(self) -> dict[str, int | float | str]:
        """What a run's record says of its intervals, the thresholds included."""
        return {
            "resamples": self.resamples,
            "confidence": self.confidence,
            "bootstrap_seed": self.seed,
            "bootstrap_min_clusters": stats.MIN_CLUSTERS,
            "exact_interval": f"{binomial.METHOD}, Korn-Graubard effective n",
            "exact_below_clusters": binomial.EXACT_BELOW,
            "exact_below_rare_clusters": binomial.RARE_BELOW,
        }


@dataclass
class Result:
    """Figures and differences of one task (Holm is applied later, over the whole run)."""

    figures: list[Figure] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def load_metrics(names: Sequence[str], warn: Callable[[str], None] = lambda message: None) -> list[Metric]:
    """The metrics called `names`; tells where one is not what its name says (METEOR without WordNet)."""
    found = [get_metric(name) for name in names]
    if any(metric.name != name for metric, name in zip(found, names, strict=True)):
        warn(
            "no WordNet: METEOR counts no synonyms and is named meteor-nowordnet. "
            "Fetch it once: heartllm-eval fetch-wordnet"
        )
    return found


def sample_statistics(metric: Metric, prediction: Prediction, request: Request) -> tuple[float, ...]:
    """One sample's statistics. A prediction that failed is scored as an empty text, so as wrong."""
    return metric.of(prediction, request)


def score_system(
    system: str,
    requests: Sequence[Request],
    predictions: Mapping[str, Prediction],
    metrics: Sequence[Metric],
    *,
    progress: Callable[[], None] = lambda: None,
) -> Scored:
    """Statistics of every metric on every request; a request without a prediction is scored as an empty text."""
    given = [predictions.get(request.id) or Prediction(request.id, "", error="no prediction") for request in requests]
    rows = {metric.name: metric.matrix(given, requests) for metric in metrics}
    for _ in requests:
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
    compare: str | Collection[str] | None = None,
    compare_slices: Callable[[str, str], bool] | None = None,
    options: Options | None = None,
) -> Result:
    """All figures of a task with intervals, and the differences of the first system to each of the others.

    Args:
        task: the suite's name.
        requests: what was asked, in the order of the statistics.
        systems: the model first, then its controls.
        metrics: what `systems` were scored with.
        slices: what to break down by, beside "all".
        compare: the name or names of the metrics that differences are taken of (every figure of them); none without.
        compare_slices: (metric's name, slice) -> whether a difference is taken of it; by default over all requests and
            by question type. Smaller slices are shown but not tested: Holm's correction would pay for it.
        options: resamples, confidence, seed.
    """
    options = options or Options()
    compared = {compare} if isinstance(compare, str) else set(compare or ())
    wanted = compare_slices or (lambda _, label: label == "all" or label.startswith("question_type="))
    result = Result()
    masks = slice_masks(requests, slices)
    rows = stats.number_clusters(request.cluster or request.id for request in requests)
    resampling = stats.Draws(len(np.unique(rows)), resamples=options.resamples, seed=options.seed)
    for metric in metrics:
        draws, values = resample(metric, systems, masks, rows, resampling)
        for label, mask in masks.items():
            for system in systems:
                for column, figure in enumerate(metric.figures):
                    key = (system.system, label)
                    counted, clusters = extent(metric, column, system.statistics[metric.name][mask], rows[mask])
                    found = stats.interval(
                        float(values[key][column]),
                        draws[key][:, column],
                        clusters=clusters,
                        confidence=options.confidence,
                    )
                    method = "none" if found.low is None else "bootstrap"
                    share = metric.share(column)
                    if share is not None:
                        counts = system.statistics[metric.name][mask][:, list(share)]
                        found, method = exact(found, method, counts, rows[mask], options.confidence)
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
                            interval=method,
                        )
                    )
            if metric.name in compared and wanted(metric.name, label):
                for control in systems[1:]:
                    result.differences += _differences(
                        task, metric, systems[0], control, label, mask, rows[mask], draws, values, options
                    )
    return result


def resample(
    metric: Metric,
    systems: Sequence[Scored],
    masks: Mapping[str, np.ndarray[tuple[int], np.dtype[np.bool_]]],
    rows: stats.Rows,
    resampling: stats.Draws,
) -> tuple[dict[tuple[str, str], Array], dict[tuple[str, str], Array]]:
    """Bootstrap scores (resamples, figures) and scores (figures,) by system and slice, all from the same draws.

    Statistics that are 0 throughout a slice (other slices' labels, mostly) are neither kept nor summed.
    """
    points: dict[tuple[str, str], Array] = {}
    drawn: dict[tuple[str, str], Array] = {}
    columns: list[tuple[tuple[str, str], np.ndarray[tuple[int], np.dtype[np.bool_]]]] = []
    totals: list[Array] = [np.zeros((resampling.clusters, 0))]
    for system in systems:
        for label, mask in masks.items():
            chosen = system.statistics[metric.name][mask]
            used = (chosen != 0).any(axis=0)
            totals.append(stats.sum_by_cluster(chosen[:, used], rows[mask], resampling.clusters))
            columns.append(((system.system, label), used))
            points[system.system, label] = metric.score(_spread(totals[-1].sum(axis=0), used))
            drawn[system.system, label] = np.empty((resampling.resamples, len(metric.figures)))
    done = 0
    for sums in resampling.sums(np.hstack(totals)):
        first, chunk = 0, slice(done, done + len(sums))
        for key, used in columns:
            width = int(used.sum())
            drawn[key][chunk] = metric.score(_spread(sums[:, first : first + width], used))
            first += width
        done = chunk.stop
    hidden = [column for column, figure in enumerate(metric.figures) if figure in metric.without_interval]
    for values in drawn.values():
        values[:, hidden] = np.nan
    return drawn, points


def _spread(sums: Array, used: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Array:
    """sums (..., columns in use) -> (..., k), with 0 in the others."""
    found: Array = np.zeros((*sums.shape[:-1], len(used)))
    found[..., used] = sums
    return found


def exact(
    found: stats.Interval,
    method: str,
    statistics: Array,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    confidence: float,
) -> tuple[stats.Interval, str]:
    """The exact interval of a share (successes, trials) and its name where the bootstrap's cannot be trusted, otherwise
    what was found."""
    if not statistics[:, -1].any():
        return found, method
    right: Array = np.bincount(rows, weights=statistics[:, 0]).astype(np.float64)
    count: Array = np.bincount(rows, weights=statistics[:, -1]).astype(np.float64)
    if not binomial.calls_for_exact(right, count):
        return found, method
    exact = binomial.clustered_interval(right, count, confidence)
    if exact is None:
        return stats.Interval(found.value, None, None), "none"
    return stats.Interval(found.value, *exact), binomial.METHOD


def _differences(
    task: str,
    metric: Metric,
    system: Scored,
    control: Scored,
    label: str,
    mask: np.ndarray[tuple[int], np.dtype[np.bool_]],
    rows: stats.Rows,
    draws: Mapping[tuple[str, str], Array],
    values: Mapping[tuple[str, str], Array],
    options: Options,
) -> list[Difference]:
    found = []
    ours, theirs = (system.system, label), (control.system, label)
    sides = system.statistics[metric.name][mask], control.statistics[metric.name][mask]
    for column, figure in enumerate(metric.figures):
        counted, clusters = extent(metric, column, sides[0], rows)
        both = counted and extent(metric, column, sides[1], rows)[0]  # a control may rank no options
        delta = draws[ours][:, column] - draws[theirs][:, column]
        value = float(values[ours][column] - values[theirs][column])
        between = stats.interval(value, delta, clusters=clusters, confidence=options.confidence)
        if (
            between.low == between.high
        ):  # every patient differs alike, mostly not at all: how far others could is unknown
            between = stats.Interval(value, None, None)
        test, p_mcnemar, only_model, only_control = "bootstrap", None, None, None
        p = p_bootstrap = stats.paired_bootstrap_p(value, delta) if clusters >= stats.MIN_CLUSTERS else math.nan
        if metric.binary and both:
            right, other = (part[:, 0] > 0 for part in sides)
            p_mcnemar, only_model, only_control = stats.mcnemar(right.tolist(), other.tolist())
            if math.isnan(p_bootstrap):
                test, p = "mcnemar+sign", max(p_mcnemar, stats.sign_test(right.astype(float) - other, rows))
            else:
                test, p = "mcnemar+bootstrap", max(p_mcnemar, p_bootstrap)
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
                model_value=_number(float(values[ours][column])),
                control_value=_number(float(values[theirs][column])),
                p_mcnemar=p_mcnemar,
                p_bootstrap=_number(p_bootstrap),
            )
        )
    return found


def correct_for_many(differences: Sequence[Difference]) -> list[Difference]:
    """Adds Holm's corrected p over all the differences given."""
    adjusted = stats.holm([math.nan if part.p is None else part.p for part in differences])
    return [replace(part, p_holm=_number(p)) for part, p in zip(differences, adjusted, strict=True)]


def extent(metric: Metric, figure: int, statistics: Array, rows: stats.Rows) -> tuple[int, int]:
    """How many samples a figure is about, or how many trials if it is a share of its own, and how many clusters.

    A sample that a metric does not apply to has only zeros.
    """
    share = metric.share(figure)
    trials = statistics[:, share[1] if share else -1]
    held = trials > 0
    return int(trials.sum() if share else held.sum()), len(np.unique(rows[held]))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value

"""Intervals and tests: bootstrap by patient, paired differences, McNemar, Holm. Needs numpy only.

Questions about one ECG, and ECGs of one patient, are not independent, so the unit that is drawn is the patient
(the cluster bootstrap; Field and Welsh 2007). All metrics, slices and systems are scored on the *same* draws, which
is what makes a difference between two systems paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heartllm_eval.metrics.base import Array

RESAMPLES = 10_000
CONFIDENCE = 0.95
MIN_CLUSTERS = 10  # with fewer patients a percentile interval is far too narrow, so none is given
_CHUNK_CELLS = 4_000_000  # draws held in memory at once


def cluster_totals(statistics: Array, clusters: Sequence[str]) -> Array:
    """Sums statistics (samples, k) within clusters, in order of first appearance -> (clusters, k)."""
    index: dict[str, int] = {}
    rows = np.fromiter((index.setdefault(name, len(index)) for name in clusters), dtype=np.int64, count=len(clusters))
    totals: Array = np.zeros((len(index), statistics.shape[1]), dtype=np.float64)
    np.add.at(totals, rows, statistics)
    return totals


def resample_totals(totals: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Array]:
    """Draws clusters with replacement and yields the summed statistics of the resamples in chunks (chunk, k).

    Args:
        totals: (clusters, k).
        resamples: how many in all.
        seed: the same seed and number of clusters give the same draws, whatever is being summed.
    """
    count = totals.shape[0]
    if count == 0:
        return
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, _CHUNK_CELLS // count))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        draws = generator.integers(0, count, size=(rows, count), dtype=np.int64)
        draws += np.arange(rows, dtype=np.int64)[:, None] * count
        weights = np.bincount(draws.ravel(), minlength=rows * count).reshape(rows, count)
        yield weights.astype(np.float64) @ totals


@dataclass(frozen=True)
class Interval:
    """A score and its percentile interval; low and high are None where there are fewer than `MIN_CLUSTERS` clusters."""

    value: float
    low: float | None
    high: float | None


def interval(value: float, draws: Array, *, clusters: int, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of bootstrap scores (resamples,); resamples in which nothing was scored are left out."""
    kept = draws[~np.isnan(draws)]
    if clusters < MIN_CLUSTERS or kept.size == 0 or math.isnan(value):
        return Interval(value, None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(kept, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def bootstrap(
    statistics: Array,
    clusters: Sequence[str],
    score: Callable[[Array], Array],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Interval]:
    """Intervals of one metric: one for each of its figures.

    Args:
        statistics: (samples, k) per-sample sufficient statistics.
        clusters: the cluster of each sample.
        score: (..., k) summed statistics -> (..., figures).
    """
    totals = cluster_totals(statistics, clusters)
    values = score(totals.sum(axis=0))
    draws = np.concatenate([score(part) for part in resample_totals(totals, resamples=resamples, seed=seed)])
    return [
        interval(float(value), draws[:, column], clusters=totals.shape[0], confidence=confidence)
        for column, value in enumerate(values)
    ]


def paired_bootstrap_p(value: float, draws: Array) -> float:
    """Two-sided p that a difference is 0, from bootstrap differences (resamples,).

    How often the draws, shifted to a mean of 0, lie at least as far from 0 as the observed difference (Riezler and
    Maxwell 2005; the same in sacreBLEU).
    """
    kept = draws[~np.isnan(draws)]
    if kept.size == 0 or math.isnan(value):
        return math.nan
    return float((np.sum(np.abs(kept - kept.mean()) >= abs(value)) + 1) / (kept.size + 1))


def binomial_two_sided(successes: int, trials: int) -> float:
    """Exact two-sided p of a fair coin: at most min(successes, failures) on either side, doubled, at most 1."""
    if trials == 0:
        return 1.0
    fewer = min(successes, trials - successes)
    if 2 * fewer == trials:
        return 1.0
    log_half = trials * math.log(2)
    log_n = math.lgamma(trials + 1)
    terms = (math.exp(log_n - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - log_half) for k in range(fewer + 1))
    return min(1.0, 2.0 * math.fsum(terms))


def mcnemar(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[float, int, int]:
    """McNemar's exact test on paired right-or-wrong answers -> p, right only in `ours`, right only in `theirs`.

    It takes the samples as independent; the cluster bootstrap beside it does not.
    """
    only_ours = sum(1 for a, b in zip(ours, theirs, strict=True) if a and not b)
    only_theirs = sum(1 for a, b in zip(ours, theirs, strict=True) if b and not a)
    return binomial_two_sided(only_ours, only_ours + only_theirs), only_ours, only_theirs


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN stays NaN and does not count as a test."""
    order = sorted((index for index, p in enumerate(p_values) if not math.isnan(p)), key=lambda index: p_values[index])
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted

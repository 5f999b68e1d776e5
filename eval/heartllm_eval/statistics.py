"""Intervals and tests: bootstrap by patient, paired differences, McNemar, Holm. Needs numpy only.

Questions about one ECG, and ECGs of one patient, are not independent, so the unit that is drawn is the patient
(the cluster bootstrap; Field and Welsh 2007). All metrics, slices and systems are scored on the *same* draws, which
is what makes a difference between two systems paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from heartllm_eval.metrics.base import Array

Rows: TypeAlias = npt.NDArray[np.int64]

RESAMPLES = 10_000
CONFIDENCE = 0.95
MIN_CLUSTERS = 10  # with fewer patients a percentile interval is far too narrow, so none is given
_CHUNK_CELLS = 1_000_000  # draws held in memory at once as floats
_KEPT_CELLS = 600_000_000  # draws kept, at one byte each, to be used again for the next metric


def number_clusters(clusters: Iterable[str]) -> Rows:
    """The clusters (samples,) as numbers from 0, in order of first appearance."""
    index: dict[str, int] = {}
    return np.array([index.setdefault(name, len(index)) for name in clusters], dtype=np.int64)


def sum_by_cluster(statistics: Array, rows: Rows, clusters: int) -> Array:
    """Sums statistics (samples, k) within clusters, numbered `rows` (samples,) -> (clusters, k)."""
    totals: Array = np.zeros((clusters, statistics.shape[1]), dtype=np.float64)
    for column in range(statistics.shape[1]):
        totals[:, column] = np.bincount(rows, weights=statistics[:, column], minlength=clusters)
    return totals


class Draws:
    """The resamples of a bootstrap: each draws as many clusters as there are, with replacement.

    They depend on the seed and the number of clusters alone, whatever is being summed, and are drawn once.

    Args:
        clusters: how many there are.
        resamples: how many to draw.
        seed: of numpy's default generator.
    """

    def __init__(self, clusters: int, *, resamples: int = RESAMPLES, seed: int = 0) -> None:
        self.clusters, self.resamples, self.seed = clusters, resamples, seed
        self._kept: list[npt.NDArray[np.uint8]] = []

    def sums(self, totals: Array) -> Iterator[Array]:
        """totals (clusters, k) -> sums (chunk, k) of the clusters that each resample drew, chunk after chunk."""
        buffer: Array = np.empty((0, 0))
        for counts in self._counts():
            if buffer.shape != counts.shape:
                buffer = np.empty(counts.shape)
            np.copyto(buffer, counts)
            yield buffer @ totals

    def _counts(self) -> Iterator[npt.NDArray[np.uint8]]:
        """How often each resample drew each cluster (chunk, clusters).

        A byte is enough: that one of n clusters is drawn more than 255 times in n draws has a chance below 1 / 255!.
        """
        if self._kept or not self.clusters:
            yield from self._kept
            return
        generator = np.random.default_rng(self.seed)
        chunk = max(1, min(self.resamples, _CHUNK_CELLS // self.clusters))
        keep, kept = self.clusters * self.resamples <= _KEPT_CELLS, []
        for start in range(0, self.resamples, chunk):
            rows = min(chunk, self.resamples - start)
            drawn = generator.integers(0, self.clusters, size=(rows, self.clusters), dtype=np.int64)
            counts = np.empty(drawn.shape, np.uint8)
            for row, part in zip(counts, drawn, strict=True):
                row[:] = np.bincount(part, minlength=self.clusters)
            if keep:
                kept.append(counts)
            yield counts
        self._kept = kept


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
    rows = number_clusters(clusters)
    count = int(rows.max()) + 1 if len(rows) else 0
    totals = sum_by_cluster(statistics, rows, count)
    values = score(totals.sum(axis=0))
    draws = np.concatenate([score(part) for part in Draws(count, resamples=resamples, seed=seed).sums(totals)])
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

    It takes the samples as independent; the cluster bootstrap, or `sign_test`, beside it does not.
    """
    only_ours = sum(1 for a, b in zip(ours, theirs, strict=True) if a and not b)
    only_theirs = sum(1 for a, b in zip(ours, theirs, strict=True) if b and not a)
    return binomial_two_sided(only_ours, only_ours + only_theirs), only_ours, only_theirs


def sign_test(gains: Array, rows: Rows) -> float:
    """Exact two-sided p that as many clusters gain as lose, from gains (samples,) in clusters `rows` (samples,).

    It holds for any number of clusters, however alike the samples of one are; 5 of 5 reach p = 0.0625 and no less.
    """
    sums = np.bincount(rows, weights=gains)
    above = int((sums > 0).sum())
    return binomial_two_sided(above, above + int((sums < 0).sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979); NaN stays NaN and does not count as a test."""
    order = sorted((index for index, p in enumerate(p_values) if not math.isnan(p)), key=lambda index: p_values[index])
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted

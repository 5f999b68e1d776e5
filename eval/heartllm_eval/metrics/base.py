"""What a metric is: per-sample sufficient statistics -> their sum -> a score, and a signature that says how.

Because the score is a function of the *sum* of the statistics, every resample of the bootstrap is one matrix product:
no text is looked at twice (sacreBLEU's pattern, Post 2018).
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from heartllm import __version__
from heartllm_eval.metrics.forms import AS_IS, TextForm
from heartllm_eval.schema import Kind, Prediction, Request

Array: TypeAlias = npt.NDArray[np.float64]


class Signature:
    """How a number was computed, as one string: `metric:bleu|profile:standard|tok:13a|...`."""

    def __init__(self, **parts: str | int | float) -> None:
        self.parts = {key: str(value) for key, value in parts.items()}

    def __str__(self) -> str:
        return "|".join(f"{key}:{value}" for key, value in {**self.parts, "version": __version__}.items())


def text_of(prediction: Prediction) -> str:
    """The text that is scored: an answer that failed counts as an empty one."""
    return "" if prediction.error else prediction.text


class Metric(ABC):
    """A metric. Subclasses are stateless but for caches.

    Attributes:
        name: "exact_match.strict"; the part after the last dot is the variant or profile.
        kind: what kind of request it scores.
        figures: the names of the numbers it gives ("bleu1", ...); one name if there is only one.
        binary: each sample is right or wrong, so that McNemar's test applies.
        without_interval: figures that a bootstrap does not do justice to: counts, and means over labels of which rare
            ones vanish from resamples.
    """

    name: str
    kind: ClassVar[Kind]
    figures: tuple[str, ...]
    binary: ClassVar[bool] = False
    without_interval: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """How it computes."""

    @abstractmethod
    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        """The sufficient statistics of one text; the last is above 0 if the metric applies to the request."""

    @abstractmethod
    def score(self, totals: Array) -> Array:
        """Scores in per cent (..., figures) of summed statistics (..., k); NaN where nothing was scored."""

    def share(self, figure: int) -> tuple[int, int] | None:
        """Which statistics are successes and trials of a figure that is a plain share of its own trials, so that its n
        is their number and its interval can be exact; None for other figures."""
        return (0, -1) if self.binary else None

    def of(self, prediction: Prediction, request: Request) -> tuple[float, ...]:
        """The statistics of one prediction."""
        return self.statistics(text_of(prediction), request)

    def matrix(self, predictions: Sequence[Prediction], requests: Sequence[Request]) -> Array:
        """The statistics (samples, k) of many predictions: those of `of`, one a row, unless a metric says otherwise."""
        rows = [self.of(prediction, request) for prediction, request in zip(predictions, requests, strict=True)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), -1)

    def sample_scores(self, statistics: tuple[float, ...]) -> dict[str, float]:
        """The per-sample figures that are written beside a sample, by full name."""
        values = self.score(np.asarray(statistics, dtype=np.float64))
        return {
            self.full_name(figure): float(value)
            for figure, value in zip(self.figures, values, strict=True)
            if value == value
        }

    def full_name(self, figure: str) -> str:
        """ "bleu.standard/bleu4", or just the metric's name where it gives one number."""
        return self.name if len(self.figures) == 1 else f"{self.name}/{figure}"


class MeanMetric(Metric):
    """A metric whose score is the mean over samples: the statistics are the sample's figures (0 to 1), then 1.

    A sample that it does not apply to has only zeros, and so does not count.
    """

    def score(self, totals: Array) -> Array:
        count = totals[..., -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Array = np.where(count > 0, 100.0 * totals[..., :-1] / count, np.nan)
        return mean


CHUNK = 8192  # texts looked at together; bounds memory


class ReportMetric(Metric):
    """A metric of texts, each compared with one or several references; it is computed for many at once.

    Args:
        form: what is done to the texts first; part of the name and of the signature.
    """

    kind = "report"
    family: ClassVar[str]
    profile: ClassVar[str]

    def __init__(self, form: TextForm = AS_IS) -> None:
        self.form = form
        self.name = f"{self.family}.{self.profile}{form.suffix}"

    @abstractmethod
    def rows(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        """Statistics (samples, k) of texts, already in this metric's form, against their references."""

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        return tuple(self._rows([prediction], [request])[0].tolist())

    def matrix(self, predictions: Sequence[Prediction], requests: Sequence[Request]) -> Array:
        return self._rows(["" if part.error else part.text for part in predictions], requests)

    def _rows(self, texts: Sequence[str], requests: Sequence[Request]) -> Array:
        plain = self.form == AS_IS
        parts = []
        with _no_garbage_collection():
            for start in range(0, max(1, len(texts)), CHUNK):
                some = texts[start : start + CHUNK]
                others: list[Sequence[str]] = [request.references for request in requests[start : start + CHUNK]]
                if not plain:
                    some, others = list(map(self.form, some)), [list(map(self.form, part)) for part in others]
                parts.append(self.rows(some, others))
        return np.concatenate(parts)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Token lists hold no cycles, but the collector would look for some at every few hundred new lists."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class BestOfReferences(MeanMetric, ReportMetric):
    """The mean over samples of a text's score with its best reference, figure by figure."""

    @abstractmethod
    def pair_scores(self, hypotheses: Sequence[str], references: Sequence[str]) -> Array:
        """Scores (0 to 1) of texts with one reference each, (pairs, figures)."""

    def rows(self, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
        counts = np.array([len(texts) for texts in references])
        flat = [text for texts in references for text in texts]
        repeated = hypotheses
        if (counts != 1).any():
            repeated = [text for text, count in zip(hypotheses, counts.tolist(), strict=True) for _ in range(count)]
        scores = self.pair_scores(repeated, flat)
        best: Array = np.zeros((len(hypotheses), len(self.figures) + 1))
        if (counts == 1).all():
            best[:, :-1], best[:, -1] = scores, 1.0
            return best
        starts = np.cumsum(counts) - counts
        best[counts > 0, :-1] = np.maximum.reduceat(scores, starts[counts > 0]) if len(flat) else 0.0
        best[counts > 0, -1] = 1.0
        return best

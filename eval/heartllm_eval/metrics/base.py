"""What a metric is: per-sample sufficient statistics -> their sum -> a score, and a signature that says how.

Because the score is a function of the *sum* of the statistics, every resample of the bootstrap is one matrix product:
no text is looked at twice (sacreBLEU's pattern, Post 2018).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from heartllm import __version__
from heartllm_eval.schema import Kind, Request

Array: TypeAlias = npt.NDArray[np.float64]


class Signature:
    """How a number was computed, as one string: `metric:bleu|profile:standard|tok:13a|...`."""

    def __init__(self, **parts: str | int | float) -> None:
        self.parts = {key: str(value) for key, value in parts.items()}

    def __str__(self) -> str:
        return "|".join(f"{key}:{value}" for key, value in {**self.parts, "version": __version__}.items())


class Metric(ABC):
    """A metric. Subclasses are stateless but for caches.

    Attributes:
        name: "exact_match.strict"; the part after the last dot is the variant or profile.
        kind: what kind of request it scores.
        figures: the names of the numbers it gives ("bleu1", ...); one name if there is only one.
        width: how many statistics a sample has.
        binary: each sample is right or wrong, so that McNemar's test applies.
    """

    name: str
    kind: ClassVar[Kind]
    figures: tuple[str, ...]
    width: int
    binary: ClassVar[bool] = False

    @property
    @abstractmethod
    def signature(self) -> Signature:
        """How it computes."""

    @abstractmethod
    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        """The `width` sufficient statistics of one sample."""

    @abstractmethod
    def score(self, totals: Array) -> Array:
        """Scores in per cent (..., figures) of summed statistics (..., width); NaN where nothing was scored."""

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

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "figures" in cls.__dict__:
            cls.width = len(cls.figures) + 1

    def score(self, totals: Array) -> Array:
        count = totals[..., -1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Array = np.where(count > 0, 100.0 * totals[..., :-1] / count, np.nan)
        return mean

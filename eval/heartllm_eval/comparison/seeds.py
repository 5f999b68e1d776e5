"""Runs that differ in their seed only: each is shown, with the range; no interval below five."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from heartllm.errors import UsageError
from heartllm_eval.binomial import t_quantile
from heartllm_eval.schema import Figure

if TYPE_CHECKING:
    from heartllm_eval.comparison.sides import Side

MIN_SEEDS = 5  # two or three runs say next to nothing about how much the next one would differ


@dataclass(frozen=True)
class Group:
    """A group's scores on one metric and slice, one a run.

    Attributes:
        values: by run's label, in per cent.
        low, high: Student's t interval of the mean over seeds; None below `MIN_SEEDS` runs. It is about training again
            on the same data, and asked about the same patients; it says nothing about other patients.
    """

    group: str
    task: str
    metric: str
    slice: str
    values: Mapping[str, float]
    low: float | None
    high: float | None

    @property
    def mean(self) -> float:
        """Over the runs."""
        return float(np.mean(list(self.values.values())))


def t_interval(values: Sequence[float], confidence: float) -> tuple[float, float] | None:
    """Student's t interval of the mean; None below `MIN_SEEDS` values."""
    if len(values) < MIN_SEEDS:
        return None
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = t_quantile((1 + confidence) / 2, len(values) - 1) * spread / math.sqrt(len(values))
    return mean - half, mean + half


def check_seeds(groups: Mapping[str, Sequence[Side]]) -> None:
    """Refuses a group of one run, and one model counted twice.

    Raises:
        UsageError: naming the runs.
    """
    for name, sides in groups.items():
        if len(sides) < 2:
            raise UsageError(f"the group {name!r} has one run", where="--seeds", remedy="Name runs of several seeds.")
        seen: dict[str, str] = {}
        for side in sides:
            model = dict(side.about.get("model") or {})
            mark = str(model.get("fingerprint") or model.get("sha256") or side.about.get("sha256") or "")
            if mark and mark in seen:
                raise UsageError(
                    f"{seen[mark]} and {side.label} hold the same model (fingerprint {mark[:12]}), not two seeds",
                    where="--seeds",
                    remedy="Name runs of models that were trained with different seeds.",
                )
            seen[mark] = side.label


def group_scores(figures: Sequence[Figure], groups: Mapping[str, Sequence[str]], confidence: float) -> list[Group]:
    """The scores of each group, from the figures of its runs, by metric and slice.

    Args:
        figures: of all runs.
        groups: group -> labels of its runs.
    """
    found: dict[tuple[str, str, str, str], dict[str, float]] = {}
    member = {label: name for name, labels in groups.items() for label in labels}
    for figure in figures:
        if figure.value is not None and figure.system in member:
            key = (member[figure.system], figure.task, figure.metric, figure.slice)
            found.setdefault(key, {})[figure.system] = figure.value
    return [
        Group(*key, values, *(t_interval(list(values.values()), confidence) or (None, None)))
        for key, values in found.items()
        if len(values) == len(groups[key[0]])
    ]

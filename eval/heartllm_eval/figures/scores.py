"""The rows that bars and curves are drawn from: one score of one system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError
from heartllm_eval.figures.style import INK, read_csv

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        system: name in tables; its colour comes from `heartllm_eval.figures.style.SYSTEMS`.
        metric: what is drawn side by side: "BLEU-1", "verify", ...
        value: of the score, or of the difference where differences are drawn.
        low, high: its interval; None where there is none.
        seeds: trainings that it is the mean of.
        at: where on a curve: number of training ECGs, parameters, ...
    """

    system: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    seeds: int = 1
    at: float | None = None


def read_scores(path: Path) -> list[Score]:
    """Scores from a CSV file with the columns of `Score`; others are ignored.

    Raises:
        DataError: where a column is missing or a cell is no number.
    """
    found = []
    for number, row in enumerate(read_csv(path), start=2):

        def cell(name: str, row: dict[str, str] = row) -> float | None:
            return float(row[name]) if row.get(name) else None

        try:
            seeds = int(row.get("seeds") or 1)
            value = float(row["value"])
            score = Score(row["system"], row["metric"], value, cell("low"), cell("high"), seeds, cell("at"))
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"is no row of scores ({error})",
                where=f"{path}:{number}",
                remedy="Columns are system, metric, value, low, high, seeds and, for curves, at.",
            ) from None
        found.append(score)
    return found


def ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Distinct names: those of `order` first, in its order, then the rest as they come."""
    distinct = list(dict.fromkeys(names))
    return [name for name in order if name in distinct] + [name for name in distinct if name not in order]


def seeds_of(scores: Iterable[Score]) -> str:
    """ "3 seeds", or "1-3 seeds" where they differ."""
    counts = {score.seeds for score in scores}
    least, most = min(counts), max(counts)
    return f"{least} seed{'s' if most > 1 else ''}" if least == most else f"{least}-{most} seeds"


def whisker(axes: Axes, x: float, score: Score, colour: str = INK, **options: Any) -> None:
    """The interval of a score as a vertical line; nothing where there is none."""
    if score.low is not None and score.high is not None:
        axes.plot([x, x], [score.low, score.high], color=colour, **{"linewidth": 0.8, "zorder": 4, **options})

"""Scores along an axis that grows: learning curves (training ECGs) and scaling (parameters of the language model)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError
from heartllm_eval.figures.scores import Score, ordered, seeds_of, whisker
from heartllm_eval.figures.style import COLUMN, GREY, PAGE, SYSTEMS, in_style, letter, look, mark_synthetic, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

APART = 0.012  # share of the axis between systems at one place, so that their intervals do not hide each other


def rows(scores: Sequence[Score], along: str = "at") -> list[dict[str, Any]]:
    """What a curve shows, for the CSV beside it; `along` names the axis."""
    found = []
    for score in scores:
        row = asdict(score)
        found.append({"system": row.pop("system"), "metric": row.pop("metric"), along: row.pop("at"), **row})
    return found


def draw_learning(scores: Sequence[Score], *, unit: str = "score, %", synthetic: bool = False) -> Figure:
    """Score against the number of training ECGs, a panel a metric; see `draw_curves`."""
    return draw_curves(scores, "training ECGs", unit, synthetic=synthetic)


def draw_scaling(scores: Sequence[Score], *, unit: str = "score, %", synthetic: bool = False) -> Figure:
    """Score against the parameters of the language model, a panel a metric; see `draw_curves`."""
    return draw_curves(scores, "parameters of the language model", unit, synthetic=synthetic)


@in_style
def draw_curves(scores: Sequence[Score], along: str, unit: str, *, synthetic: bool = False) -> Figure:
    """A panel a metric; a line a system through its places, with intervals. The axis is logarithmic.

    A score without a place (`at` None) is a level that does not depend on the axis, such as a control: a dashed line.

    Raises:
        DataError: where no score has a place, a place is not positive, or one comes twice.
    """
    _check(scores)
    metrics = list(dict.fromkeys(score.metric for score in scores))
    systems = ordered((score.system for score in scores), list(SYSTEMS))
    wide = len(metrics) > 2
    columns = min(len(metrics), 4 if wide else 2)
    lines = -(-len(metrics) // columns)
    figure = new_figure(PAGE if wide else COLUMN, 0.4 + 1.75 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    places = sorted({score.at for score in scores if score.at is not None})
    for number, (axes, metric) in enumerate(zip(grid, metrics, strict=False)):
        _panel(axes, [score for score in scores if score.metric == metric], systems, places)
        letter(axes, f"{'abcdefgh'[number]}  {metric}" if len(metrics) > 1 else metric)
    for axes in grid[len(metrics) :]:
        axes.remove()
    figure.supylabel(unit)
    # supxlabel is the place of the note on synthetic data
    for axes in grid[max(0, len(metrics) - columns) : len(metrics)]:
        axes.set_xlabel(along)
    handles: dict[str, Any] = {}
    for axes in grid[: len(metrics)]:
        handles.update({label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    labels = [f"{name} ({seeds_of(s for s in scores if s.system == name)})" for name in handles]
    figure.legend(list(handles.values()), labels, loc="outside upper center", ncols=4 if wide else 2)
    if synthetic:
        mark_synthetic(figure)
    return figure


def _check(scores: Sequence[Score]) -> None:
    remedy = "Each system needs one score of a metric at each place, averaged over seeds."
    places = [(score.system, score.metric, score.at) for score in scores]
    if not any(at is not None for _, _, at in places):
        raise DataError("no score has a place on the axis", where="curves", remedy=remedy)
    for place in places:
        if places.count(place) > 1:
            raise DataError(f"{place[0]} has two scores in {place[1]} at {place[2]}", where="curves", remedy=remedy)
        if place[2] is not None and place[2] <= 0:
            raise DataError(f"{place[0]} has a score at {place[2]}", where="curves", remedy="The axis is logarithmic.")


def _panel(axes: Axes, scores: Sequence[Score], systems: Sequence[str], places: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator

    span = (places[-1] / places[0]) if len(places) > 1 else 10.0
    for number, system in enumerate(systems):
        own = [score for score in scores if score.system == system]
        signs = look(system)
        shift = span ** (APART * (number - (len(systems) - 1) / 2))
        curve = sorted((score for score in own if score.at is not None), key=lambda score: score.at or 0)
        if curve:
            x = [(score.at or 0) * shift for score in curve]
            y = [score.value for score in curve]
            axes.plot(x, y, marker=signs.marker, color=signs.colour, label=system, markersize=3.5, zorder=3)
            for place, score in zip(x, curve, strict=True):
                whisker(axes, place, score, signs.colour)
        for score in own:
            if score.at is None:
                axes.axhline(score.value, color=GREY, linestyle=(0, (3, 1.5)), label=system)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(places), [short_count(place) for place in places])
    axes.set_xlim(places[0] / span**0.08, places[-1] * span**0.08)
    axes.grid(axis="y")


def short_count(value: float) -> str:
    """1500 -> "1.5k", 20_000_000 -> "20M"."""
    for limit, sign in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{sign}"
    return f"{value:.3g}"

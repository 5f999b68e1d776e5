"""The figure of forecasts: what the second half of an ECG is thought to be, against what it is.

A panel a measure, a line a way to forecast, a sign a dataset. A hollow sign cannot be told from the baseline (that is
repeating the last beat; in the last panel, the frequencies of codes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError
from heartllm_eval.figures.codec import DATASETS
from heartllm_eval.figures.forecast_measures import (
    CODE_SYSTEMS,
    LOST,
    MEASURES,
    NATS,
    PR,
    QRS,
    QT,
    RATE,
    RMSE,
    SYSTEMS,
    UNLIKE,
    VARIATION,
)
from heartllm_eval.figures.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PAGE,
    VERMILION,
    in_style,
    letter,
    mark_synthetic,
    new_figure,
)
from heartllm_eval.statistics import MIN_CLUSTERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
SHADES = ((BLUE, "o"), (ORANGE, "s"), (VERMILION, "^"), (INK, "D"))
# Where an axis turns from even to logarithmic, and its ticks; the others are even.
SCALES: dict[str, tuple[float, tuple[float, ...]]] = {
    RATE: (5.0, (0, 2, 5, 15, 50, 150)),
    VARIATION: (50.0, (0, 20, 50, 150, 500, 1500)),
    **dict.fromkeys((PR, QRS, QT), (20.0, (0, 10, 20, 60, 200, 600))),
}
UNITS = {RATE: "error, bpm", LOST: "% of ECGs", RMSE: "mV", UNLIKE: "1 - correlation", NATS: "nats a code"}
PANELS = (RATE, VARIATION, LOST, PR, QRS, QT, RMSE, UNLIKE, NATS)
COLUMNS = 3


@in_style
def draw_forecast(rows: Rows) -> Figure:
    """Mean errors with their intervals; rows are those of `forecast_data.read`.

    Raises:
        DataError: where there are none, or more datasets than signs.
    """
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in rows))
    if not 0 < len(datasets) <= len(SHADES):
        remedy = f"Measure 1 to {len(SHADES)} with heartllm-eval measure forecast."
        raise DataError(f"{len(datasets)} datasets cannot be drawn", where="forecast", remedy=remedy)
    lines = -(-len(PANELS) // COLUMNS)
    figure = new_figure(PAGE, 0.35 + lines * (0.62 + 0.16 * len(SYSTEMS)))
    grid = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for place, (axes, measure) in enumerate(zip(grid, PANELS, strict=True)):
        names = CODE_SYSTEMS if measure == NATS else SYSTEMS
        _panel(axes, [row for row in rows if row["measure"] == measure], names, datasets)
        axes.set_yticks(range(len(names)), names if place % COLUMNS == 0 else [""] * len(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        _axis(axes, measure)
        if measure == NATS:  # lines of its own: their names stand inside
            for y, name in enumerate(names):
                axes.text(0.02 * axes.get_xlim()[1], y, name, va="center")
        letter(axes, f"{'abcdefghi'[place]}  {measure.partition(',')[0] if measure != LOST else 'no rhythm told'}")
    handles, labels = _signs(rows, datasets)
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 3))
    if all(dataset.startswith("synthetic") for dataset in datasets):
        mark_synthetic(figure)
    return figure


def _panel(axes: Axes, rows: Rows, names: Sequence[str], datasets: Sequence[str]) -> None:
    for step, dataset in enumerate(datasets):
        colour, marker = SHADES[step]
        for row in rows:
            if row["dataset"] != dataset or row["value"] is None:
                continue
            y = names.index(row["system"]) + 0.34 * (step - (len(datasets) - 1) / 2)
            if row["low"] is not None:
                axes.hlines(y, row["low"], row["high"], color=colour, linewidth=0.9)
            face = colour if told_apart(row) or row["system"] == row["against"] else "white"
            axes.plot(
                row["value"],
                y,
                linestyle="",
                marker=marker,
                color=colour,
                markerfacecolor=face,
                markersize=3.5,
                zorder=3,
            )


def told_apart(row: Mapping[str, Any]) -> bool:
    """Whether the interval of its gain over the baseline lies on one side of 0."""
    low, high = row["gain_low"], row["gain_high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def _axis(axes: Axes, measure: str) -> None:
    axes.grid(axis="x")
    axes.set_xlabel(UNITS.get(measure, f"error, {MEASURES[measure]}"))
    most = axes.get_xlim()[1]
    if measure in SCALES:
        straight, ticks = SCALES[measure]
        shown = [tick for place, tick in enumerate(ticks) if place < 3 or ticks[place - 1] < most]
        axes.set_xscale("symlog", linthresh=straight, linscale=1.0)
        axes.set_xlim(0, max(shown[-1], 1.1 * most))
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axes.minorticks_off()
    elif measure == LOST:
        axes.set(xlim=(-4, 104), xticks=[0, 50, 100])
    else:
        axes.set_xlim(0, None)


def _signs(rows: Rows, datasets: Sequence[str]) -> tuple[list[Any], list[str]]:
    """A sign a dataset, and the hollow one."""
    from matplotlib.lines import Line2D

    handles, labels = [], []
    for (colour, marker), dataset in zip(SHADES, datasets, strict=False):
        counts = [int(row["recordings"]) for row in rows if row["dataset"] == dataset]
        handles.append(Line2D([], [], linestyle="", marker=marker, color=colour, markersize=3.5))
        labels.append(f"{DATASETS.get(dataset, dataset)} ({max(counts)} ECGs)")
    hollow = Line2D([], [], linestyle="", marker="o", color=GREY, markerfacecolor="white", markersize=3.5)
    said = "hollow: not to be told from the baseline"
    if any(row["value"] is not None and row["low"] is None for row in rows):
        said += f"; no line: below {MIN_CLUSTERS} patients"
    return [*handles, hollow], [*labels, said]

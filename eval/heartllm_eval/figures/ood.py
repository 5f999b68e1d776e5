"""Scores out of distribution: against the strength of noise, gain and bandwidth, and under exchanged or lost leads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from heartllm.errors import DataError
from heartllm_eval.figures.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PAGE,
    PURPLE,
    VERMILION,
    in_style,
    letter,
    mark_synthetic,
    new_figure,
)
from heartllm_eval.ood import CLEAN, Measured, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Panels of numeric curves: title, axis, curves with their signs, logarithmic, reversed so that harm grows rightwards.
LINES = {
    "noise=white": ("white", BLUE, "o"),
    "noise=muscle": ("muscle", VERMILION, "^"),
    "noise=wander": ("baseline wander", GREEN, "s"),
    "noise=powerline": ("power line", ORANGE, "v"),
    "noise=powerline60": ("power line, 60 Hz", ORANGE, "v"),
    "baseline": ("baseline wander", GREEN, "s"),
    "gain": ("gain", PURPLE, "D"),
    "resample": ("sampling rate", BLUE, "o"),
    "lowpass": ("bandwidth", VERMILION, "^"),
}
PANELS = (
    (
        "noise",
        "signal-to-noise ratio, dB",
        ("noise=white", "noise=muscle", "noise=wander", "noise=powerline"),
        False,
        True,
    ),
    ("gain", "amplitude, times", ("gain",), True, False),
    ("sampling rate and bandwidth", "Hz", ("resample", "lowpass"), True, True),
)
PLACES = {"swap": "electrodes exchanged", "channels": "names exchanged", "missing": "leads lost (as zeros)"}
GROUPS = {"I+II+III+aVR+aVL+aVF": "all limb leads", "V1+V2+V3+V4+V5+V6": "all chest leads"}


@in_style
def draw_ood(measured: Measured) -> Figure:
    """A panel for each kind of curve that was measured, and one for exchanged and lost leads.

    Bands and whiskers are 95 % intervals by patient; dashed lines are the score without a shift and the controls'.

    Raises:
        DataError: where nothing was measured.
    """
    points = [point for point in measured.points if point.slice == "all" and point.score is not None]
    if not points:
        raise DataError("nothing was measured", where="ood", remedy="Run heartllm-eval measure shift.")
    panels = [
        panel for panel in PANELS if any(point.curve in panel[2] and point.strength is not None for point in points)
    ]
    places = [point for point in points if point.curve in PLACES]
    count = len(panels) + bool(places)
    lines = 1 if count < 3 else 2
    figure = new_figure(PAGE, 0.35 + 2.1 * lines)
    grid = figure.subplots(lines, -(-count // lines), squeeze=False).flatten()
    low, high = _limits(measured, points)
    for number, (axes, (title, label, curves, log, falling)) in enumerate(zip(grid, panels, strict=False)):
        for name in curves:
            _line(axes, name, [point for point in points if point.curve == name and point.strength is not None])
        _levels(axes, measured, vertical=False)
        letter(axes, f"{'abcd'[number]}  {title}")
        axes.set(xlabel=label, ylim=(low, high))
        if log:
            _log_axis(axes, sorted({p.strength for p in points if p.curve in curves and p.strength is not None}))
        if falling:
            axes.invert_xaxis()
        if len(axes.lines) and len([name for name in curves if any(p.curve == name for p in points)]) > 1:
            axes.legend(loc="lower left")
    if places:
        axes = grid[len(panels)]
        _places(axes, places, measured)
        letter(axes, f"{'abcd'[len(panels)]}  leads and electrodes")
        axes.set(xlabel=_unit(measured), xlim=(low, high))
    for axes in grid[:: -(-count // lines)]:
        if axes is not grid[len(panels) % len(grid)] or not places:
            axes.set_ylabel(_unit(measured))
    for axes in grid[count:]:
        axes.set_visible(False)
    if measured.about.get("synthetic"):
        mark_synthetic(figure)
    return figure


def _unit(measured: Measured) -> str:
    return f"{str(measured.about['metric']).replace('_', ' ').partition('.')[0]}, %"


def _limits(measured: Measured, points: Sequence[Point]) -> tuple[float, float]:
    """One axis of scores for all panels."""
    values = [v for point in points for v in (point.score, point.low, point.high) if v is not None]
    values += [v for level in measured.levels.values() for v in level[:1] if v is not None]
    room = 0.05 * max(5.0, max(values) - min(values))
    return min(values) - room, max(values) + room


def _line(axes: Axes, name: str, points: Sequence[Point]) -> None:
    if not points:
        return
    label, colour, marker = LINES[name]
    points = sorted(points, key=lambda point: point.strength or 0.0)
    at = [point.strength or 0.0 for point in points]
    axes.plot(at, [point.score or 0.0 for point in points], color=colour, marker=marker, label=label, gid=name)
    known = [point for point in points if point.low is not None and point.high is not None]
    axes.fill_between(
        [point.strength or 0.0 for point in known],
        [point.low or 0.0 for point in known],
        [point.high or 0.0 for point in known],
        color=colour,
        alpha=0.13,
        linewidth=0,
    )


def _log_axis(axes: Axes, ticks: Sequence[float]) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _levels(axes: Axes, measured: Measured, *, vertical: bool) -> None:
    """The clean score and the controls', named at the line."""
    draw = axes.axvline if vertical else axes.axhline
    for name, (score, _, _) in measured.levels.items():
        if score is None:
            continue
        draw(score, color=INK if name == CLEAN else GREY, linestyle=(0, (4, 2)), linewidth=0.8, zorder=0, gid=name)
        where = {"x": score, "y": 1.0} if vertical else {"x": 1.0, "y": score}
        axes.annotate(
            name,
            (where["x"], where["y"]),
            xycoords=("data", "axes fraction") if vertical else ("axes fraction", "data"),
            xytext=(0, 1) if vertical else (-1, 1),
            textcoords="offset points",
            ha="center" if vertical else "right",
            va="bottom",
            color=INK if name == CLEAN else GREY,
        )


def _places(axes: Axes, points: Sequence[Point], measured: Measured) -> None:
    """A row for each exchange or loss, with its interval."""
    names, at = [], []
    row = 0.0
    for kind, title in PLACES.items():
        chosen = [point for point in points if point.curve == kind]
        if not chosen:
            continue
        axes.text(0.0, row, title, transform=axes.get_yaxis_transform(), va="center", style="italic")
        row += 1
        for point in chosen:
            score = point.score or 0.0
            if point.low is not None and point.high is not None:
                axes.plot([point.low, point.high], [row, row], color=BLUE, linewidth=1.0)
            axes.plot([score], [row], color=BLUE, marker="o", linestyle="none")
            value, colon, how = point.value.partition(":")
            names.append(GROUPS.get(value, value) + (", filled in" if colon and how else ""))
            at.append(row)
            row += 1
    axes.set_yticks(at, names)
    axes.set_ylim(row - 0.4, -0.6)
    _levels(axes, measured, vertical=True)

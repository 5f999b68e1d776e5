"""What a score loses out of distribution: against the strength of noise, gain and bandwidth, and with exchanged or lost
leads. Every point is a change from the same questions on the same ECGs without the shift, so its interval is paired."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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
from heartllm_eval.ood import CLEAN, Measured, Point, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Numeric curves: name, colour, marker, and the strength at which nothing is shifted (None: there is none).
LINES: dict[str, tuple[str, str, str, float | None]] = {
    "noise=white": ("white", BLUE, "o", None),
    "noise=muscle": ("muscle", VERMILION, "^", None),
    "noise=wander": ("baseline wander", GREEN, "s", None),
    "noise=powerline": ("power line", ORANGE, "v", None),
    "gain": ("gain", PURPLE, "D", 1.0),
    "resample": ("sampling rate", BLUE, "o", 500.0),
    "lowpass": ("bandwidth", VERMILION, "^", None),
}
# Panels: title, axis, curves, logarithmic, reversed so that harm grows rightwards.
PANELS = (
    ("noise", "signal-to-noise ratio, dB", tuple(name for name in LINES if name.startswith("noise")), False, True),
    ("gain", "amplitude, times", ("gain",), True, False),
    ("sampling rate and bandwidth", "Hz", ("resample", "lowpass"), True, True),
)
PLACES = {"swap": "electrodes exchanged", "channels": "names exchanged", "missing": "leads lost (as zeros)"}
GROUPS = {"I+II+III+aVR+aVL+aVF": "all limb leads", "V1+V2+V3+V4+V5+V6": "all chest leads"}
DASHES = ((4, 2), (1, 1.5), (4, 1.5, 1, 1.5), (6, 3))


def read_first(place: Path) -> Measured:
    """The data file at `place`, or the first of a folder by name.

    Raises:
        DataError: where there is none.
    """
    files = [place] if place.is_file() else sorted(place.glob("*.json"))
    if not files:
        raise DataError("holds no measured shifts", where=place, remedy="Run heartllm-eval measure shift.")
    return read(files[0])


@in_style
def draw_ood(measured: Measured) -> Figure:
    """A panel for each kind of curve that was measured, and one for exchanged and lost leads.

    Bands and whiskers are 95 % intervals of the change, paired by sample and resampled by patient; dashed lines are the
    score without a shift, and the controls' on the same scale.

    Raises:
        DataError: where nothing was measured.
    """
    points = [point for point in measured.points if point.slice == "all" and point.change is not None]
    if not points:
        raise DataError("nothing was measured", where="ood", remedy="Run heartllm-eval measure shift.")
    panels = [panel for panel in PANELS if any(p.curve in panel[2] and p.strength is not None for p in points)]
    places = [point for point in points if point.curve in PLACES]
    count = len(panels) + bool(places)
    lines = 1 if count < 3 else 2
    columns = -(-count // lines)
    figure = new_figure(PAGE, 0.5 + 2.15 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    limits = _limits(measured, points)
    for number, (axes, (title, label, curves, log, falling)) in enumerate(zip(grid, panels, strict=False)):
        shown = [name for name in curves if any(point.curve == name for point in points)]
        for name in shown:
            _line(axes, name, [point for point in points if point.curve == name and point.strength is not None])
        _axis(axes, [at for line in axes.lines for at in line.get_xdata()], log)
        _levels(axes, measured, vertical=False)
        letter(axes, f"{'abc'[number]}  {title}")
        axes.set(xlabel=label, ylim=limits)
        if number % columns == 0:
            axes.set_ylabel(_unit(measured))
        if falling:
            axes.invert_xaxis()
        if len(shown) > 1:
            axes.legend(handles=[line for line in axes.lines if line.get_gid() in LINES], loc="lower left")
    if places:
        axes = grid[len(panels)]
        _places(axes, places, measured)
        letter(axes, f"{'abcd'[len(panels)]}  leads and electrodes")
        axes.set(xlabel=_unit(measured), xlim=limits)
    for axes in grid[count:]:
        axes.set_visible(False)
    handles = [line for line in grid[0].lines if str(line.get_gid()).startswith("level ")]
    figure.legend(handles, [str(line.get_label()) for line in handles], loc="outside upper right", ncols=len(handles))
    if measured.about.get("synthetic"):
        mark_synthetic(figure)
    return figure


def _unit(measured: Measured) -> str:
    return f"change in {str(measured.about['metric']).replace('_', ' ').partition('.')[0]}, points"


def _level(measured: Measured, name: str) -> float | None:
    """A control's score, or the clean one's, on the scale of changes."""
    score, clean = measured.levels[name][0], measured.levels[CLEAN][0]
    return None if score is None or clean is None else score - clean


def _limits(measured: Measured, points: Sequence[Point]) -> tuple[float, float]:
    """One axis of changes for all panels."""
    values = [v for point in points for v in (point.change, point.change_low, point.change_high) if v is not None]
    values += [level for name in measured.levels if (level := _level(measured, name)) is not None]
    room = 0.05 * max(5.0, max(values) - min(values))
    return min(values) - room, max(values) + room


def _line(axes: Axes, name: str, points: Sequence[Point]) -> None:
    label, colour, marker, unshifted = LINES[name]
    rows = [(p.strength or 0.0, p.change or 0.0, p.change_low, p.change_high) for p in points]
    if unshifted is not None:
        rows.append((unshifted, 0.0, 0.0, 0.0))
    rows.sort()
    axes.plot([row[0] for row in rows], [row[1] for row in rows], color=colour, marker=marker, label=label, gid=name)
    known = [(at, low, high) for at, _, low, high in rows if low is not None and high is not None]
    at, low, high = ([row[column] for row in known] for column in range(3))
    if len(known) == 1:
        axes.vlines(at, low, high, color=colour, linewidth=0.8)
    else:
        axes.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)


def _axis(axes: Axes, at: Sequence[float], log: bool) -> None:
    """Ticks where something was measured."""
    from matplotlib.ticker import NullFormatter, NullLocator

    ticks = sorted(set(at))
    if log:
        axes.set_xscale("log")
        apart: list[float] = []
        for tick in ticks:  # labels that would touch are left out
            if not apart or tick / apart[-1] > 1.3:
                apart.append(tick)
        ticks = apart
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _levels(axes: Axes, measured: Measured, *, vertical: bool) -> None:
    """The clean score and the controls', as dashed lines that the figure's legend names."""
    draw = axes.axvline if vertical else axes.axhline
    for number, (name, (score, _, _)) in enumerate(measured.levels.items()):
        place = _level(measured, name)
        if place is None:
            continue
        draw(
            place,
            color=INK if name == CLEAN else GREY,
            linestyle=(0, DASHES[number % len(DASHES)]),
            linewidth=0.9,
            zorder=0,
            gid=f"level {name}",
            label=f"{'without a shift' if name == CLEAN else name} ({score:.1f} %)",
        )


def _places(axes: Axes, points: Sequence[Point], measured: Measured) -> None:
    """A row for each exchange or loss, with its interval."""
    names, at, row = [], [], 0.0
    for kind, title in PLACES.items():
        chosen = [point for point in points if point.curve == kind]
        if not chosen:
            continue
        axes.text(0.01, row, title, transform=axes.get_yaxis_transform(), va="center", style="italic")
        row += 1
        for point in chosen:
            if point.change_low is not None and point.change_high is not None:
                axes.plot([point.change_low, point.change_high], [row, row], color=BLUE, linewidth=1.0)
            axes.plot([point.change or 0.0], [row], color=BLUE, marker="o", linestyle="none")
            value, colon, how = point.value.partition(":")
            names.append(GROUPS.get(value, value) + (", filled in" if colon and how else ""))
            at.append(row)
            row += 1
    axes.set_yticks(at, names)
    axes.set_ylim(row - 0.4, -0.6)
    _levels(axes, measured, vertical=True)

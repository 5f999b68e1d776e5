"""A 12-lead ECG on ECG paper: 25 mm/s, 10 mm/mV, 3 x 4 leads over a rhythm strip, in true size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heartllm.ecg.recording import LEADS, Recording
from heartllm.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MM_PER_INCH = 25.4
_PULSE_MM = 15.0  # room for the calibration pulse left of the leads
_COLUMNS = (LEADS[0:3], LEADS[3:6], LEADS[6:9], LEADS[9:12])


@dataclass(frozen=True)
class Paper:
    """How the paper looks and at what scale it is written on.

    Attributes:
        speed: mm/s. gain: mm/mV.
        column_seconds: seconds of each lead in the 3 x 4 block.
        row_height: mm between the baselines of two rows.
        margin: mm around the grid.
        minor, major: colours of the 1 mm and 5 mm lines; background: the paper; ink: the trace and the text.
        line_width: of the trace, mm.
    """

    speed: float = 25.0
    gain: float = 10.0
    column_seconds: float = 2.5
    row_height: float = 30.0
    margin: float = 5.0
    minor: str = "#f8d4d0"
    major: str = "#eba59e"
    background: str = "#fffaf8"
    ink: str = "#15151c"
    line_width: float = 0.28


def plot_ecg(
    recording: Recording,
    *,
    title: str | None = None,
    rhythm_lead: str | None = "II",
    paper: Paper | None = None,
    scale: float = 1.0,
) -> Figure:
    """Draws a recording as a printed ECG.

    The four columns follow one another in time, as paper recorders write them: column 2 shows seconds 2.5 to 5 and so
    on, so that beats line up with the rhythm strip below. Missing samples are left open.

    Args:
        recording: any length; the first 4 x `column_seconds` are drawn.
        title: a line above the grid; default: the record's id.
        rhythm_lead: the lead of the strip over the whole width; None leaves it out.
        paper: scales and colours.
        scale: 1 is true size (a 10 s ECG is 27 cm wide when printed or saved at any dpi); 0.5 halves it.

    Returns:
        The figure; it belongs to no window (no pyplot state). Save it with `save`.

    Raises:
        UsageError: for an unknown rhythm lead.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paper = paper or Paper()
    if rhythm_lead is not None and rhythm_lead not in LEADS:
        raise UsageError(f"unknown rhythm lead {rhythm_lead!r}", remedy=f"Choose one of: {', '.join(LEADS)}.")
    rows = 3 + (rhythm_lead is not None)
    grid_width = _up_to_5(_PULSE_MM + 4 * paper.column_seconds * paper.speed + 5)
    above, below = _beyond(recording, rhythm_lead, paper)
    grid_height = _up_to_5(rows * paper.row_height + 10) + above + below
    header_mm, footer_mm = 4.0, 6.0
    width, height = grid_width + 2 * paper.margin, grid_height + header_mm + footer_mm + paper.margin
    figure = Figure(figsize=(width * scale / _MM_PER_INCH, height * scale / _MM_PER_INCH), facecolor=paper.background)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (paper.margin / width, footer_mm / height, grid_width / width, grid_height / height),
        xlim=(0, grid_width),
        ylim=(0, grid_height),
        facecolor=paper.background,
    )
    axes.set_axis_off()
    _draw_grid(axes, grid_width, grid_height, paper, scale)
    for row in range(rows):
        baseline = grid_height - 10 - above - (row + 0.5) * paper.row_height
        _draw_pulse(axes, baseline, paper, scale)
        leads = [column[row] for column in _COLUMNS] if row < 3 else [rhythm_lead or ""]
        seconds = paper.column_seconds if row < 3 else 4 * paper.column_seconds
        for column, lead in enumerate(leads):
            start = column * seconds
            _draw_lead(axes, recording, lead, start, seconds, _PULSE_MM + start * paper.speed, baseline, paper, scale)
    _draw_text(figure, recording, title, paper, scale, width, height)
    return figure


def plot_strips(
    axes: Axes,
    recording: Recording,
    leads: Sequence[str],
    *,
    seconds: float = 10.0,
    paper: Paper | None = None,
    scale: float,
) -> None:
    """Draws whole leads under one another on ECG paper, into axes of any figure.

    The axes then count millimetres of paper: a second is `paper.speed` of them, and the first lead's row is the
    uppermost `paper.row_height`, so that marks can be laid over the ECG. Each lead's median lies on its baseline.

    Args:
        seconds: how much of the recording is drawn.
        scale: printed millimetres of a millimetre of paper; below one half only the 5 mm lines are drawn.

    Raises:
        UsageError: for an unknown lead, or none.
    """
    paper = paper or Paper()
    if not leads or any(lead not in LEADS for lead in leads):
        raise UsageError(f"cannot draw the leads {list(leads)}", remedy=f"Choose some of: {', '.join(LEADS)}.")
    width, height = seconds * paper.speed, len(leads) * paper.row_height
    axes.set(xlim=(0, width), ylim=(0, height), facecolor=paper.background)
    axes.set_axis_off()
    _draw_grid(axes, width, height, paper, scale, steps=(1, 5) if scale >= 0.5 else (5,))
    rate = recording.sampling_rate
    for row, lead in enumerate(leads):
        values = recording.lead(lead)[: round(seconds * rate)]
        level = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
        axes.plot(
            np.arange(len(values)) / rate * paper.speed,
            height - (row + 0.5) * paper.row_height + (values - level) * paper.gain,
            color=paper.ink,
            linewidth=max(_points(paper.line_width, scale), 0.4),
            solid_joinstyle="round",
            zorder=3,
        )


def save(figure: Figure, path: str | Path, *, dpi: float = 150.0) -> Path:
    """Saves a figure in its true size; the suffix chooses the kind (.png, .pdf, .svg).

    Raises:
        UsageError: for a kind that matplotlib cannot write, or a folder that is not there.
    """
    path = Path(path)
    try:
        figure.savefig(path, dpi=dpi, facecolor=figure.get_facecolor())
    except ValueError:
        raise UsageError(
            f"unknown kind of figure {path.suffix!r}", where=path, remedy="Use .png, .pdf or .svg."
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot be written ({error.strerror})",
            where=path,
            remedy="Choose a folder that exists and can be written.",
        ) from None
    return path


def _beyond(recording: Recording, rhythm_lead: str | None, paper: Paper) -> tuple[float, float]:
    """Millimetres to add above the first row and below the last, so that tall complexes are not cut off by the paper.

    Rows in between may run into each other, as they do in print. At most 40 mm are added on either side.
    """
    samples = round(4 * paper.column_seconds * recording.sampling_rate)
    quarter = samples // 4
    first = [recording.lead(column[0])[i * quarter : (i + 1) * quarter] for i, column in enumerate(_COLUMNS)]
    last = [recording.lead(column[2])[i * quarter : (i + 1) * quarter] for i, column in enumerate(_COLUMNS)]
    if rhythm_lead is not None:
        last = [recording.lead(rhythm_lead)[:samples]]
    room = paper.row_height / 2 - 2
    top = float(np.nanmax(np.concatenate(first), initial=0.0)) * paper.gain - (room + 10)
    bottom = -float(np.nanmin(np.concatenate(last), initial=0.0)) * paper.gain - room
    return float(np.clip(_up_to_5(top), 0, 40)), float(np.clip(_up_to_5(bottom), 0, 40))


def _up_to_5(millimetres: float) -> float:
    return 5.0 * float(np.ceil(millimetres / 5 - 1e-9))


def _points(millimetres: float, scale: float) -> float:
    """Millimetres on the paper as typographic points (line widths, font sizes)."""
    return millimetres * scale * 72 / _MM_PER_INCH


def _draw_grid(
    axes: Axes, width: float, height: float, paper: Paper, scale: float, steps: Sequence[int] = (1, 5)
) -> None:
    from matplotlib.collections import LineCollection

    for step, colour, thickness, order in ((1, paper.minor, 0.1, 0), (5, paper.major, 0.18, 1)):
        if step not in steps:
            continue
        lines = [[(x, 0.0), (x, height)] for x in np.arange(0, width + 0.5, step)]
        lines += [[(0.0, y), (width, y)] for y in np.arange(0, height + 0.5, step)]
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=_points(thickness, scale), zorder=order, clip_on=False)
        )


def _draw_pulse(axes: Axes, baseline: float, paper: Paper, scale: float) -> None:
    """The calibration pulse: 1 mV for 0.2 s."""
    top, width = baseline + paper.gain, 0.2 * paper.speed
    left = (_PULSE_MM - width) / 2
    axes.plot(
        [left - 2, left, left, left + width, left + width, left + width + 2],
        [baseline, baseline, top, top, baseline, baseline],
        color=paper.ink,
        linewidth=_points(paper.line_width, scale),
        solid_joinstyle="miter",
        zorder=3,
    )


def _draw_lead(
    axes: Axes,
    recording: Recording,
    lead: str,
    start: float,
    seconds: float,
    left: float,
    baseline: float,
    paper: Paper,
    scale: float,
) -> None:
    """One lead from `start` seconds on, with its name and the tick where it begins."""
    rate = recording.sampling_rate
    first, last = round(start * rate), round((start + seconds) * rate) + 1
    values = recording.lead(lead)[first:last]
    width = _points(paper.line_width, scale)
    if len(values):
        x = left + np.arange(len(values)) / rate * paper.speed
        axes.plot(
            x, baseline + values * paper.gain, color=paper.ink, linewidth=width, solid_joinstyle="round", zorder=3
        )
    if start > 0:  # a short separator where one lead ends and the next begins
        axes.plot([left, left], [baseline + 3, baseline + 6], color=paper.ink, linewidth=width, zorder=3)
    axes.text(
        left + 1.2,
        baseline + 0.36 * paper.row_height,
        lead,
        color=paper.ink,
        fontsize=_points(3.3, scale),
        fontfamily="sans-serif",
        va="center",
        ha="left",
        zorder=2,
        bbox={"facecolor": paper.background, "edgecolor": "none", "pad": _points(0.4, scale), "alpha": 0.8},
    )


def _draw_text(
    figure: Figure, recording: Recording, title: str | None, paper: Paper, scale: float, width: float, height: float
) -> None:
    heading = title if title is not None else recording.record_id
    if heading:
        figure.text(
            paper.margin / width,
            1 - 4.6 / height,
            heading,
            color=paper.ink,
            fontsize=_points(3.6, scale),
            va="center",
            ha="left",
            parse_math=False,
        )
    facts = f"{paper.speed:g} mm/s   {paper.gain:g} mm/mV   {recording.sampling_rate:g} Hz"
    shown = 4 * paper.column_seconds
    if recording.duration > shown:
        facts += f"   first {shown:g} s of {recording.duration:g} s"
    figure.text(
        1 - paper.margin / width,
        2.8 / height,
        facts,
        color=paper.ink,
        fontsize=_points(2.7, scale),
        va="center",
        ha="right",
        parse_math=False,
    )

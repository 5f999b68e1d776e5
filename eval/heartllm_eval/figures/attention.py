"""Figure 4 a-b: what an answer looks at and what it depends on, drawn over the ECG on its paper.

Each example is a column: attention, occlusion beside it, and the attention of the same question on a shuffled ECG,
which shows what words and positions attract by themselves. A second figure tells occlusion apart by lead group, a third
gives the numbers: how much of a known finding the top fifth of the windows covers, by kind of finding.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heartllm.ecg.plot import Paper, plot_strips
from heartllm.ecg.recording import LEADS, Recording
from heartllm.errors import DataError
from heartllm_eval.figures import style
from heartllm_eval.figures.attention_data import SHOWN_RATE, Example
from heartllm_eval.figures.attention_maps import ATTENTION, BEATS, CYCLE, LEAD_GROUPS, SHUFFLED
from heartllm_eval.figures.attention_measures import EVERY, READ

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

PANELS = (
    (ATTENTION, "attention", style.BLUE),
    (BEATS, "occlusion: log likelihood lost", style.VERMILION),
    (SHUFFLED, "control: attention, shuffled ECG", style.GREY),
)
SHOWN_LEADS = ("II", "V1", "V5")
PAPER = Paper(row_height=22.0, gain=7.0, background="#ffffff", line_width=0.6)
SCALE = style.COLUMN * 25.4 / (10.0 * PAPER.speed)  # printed millimetres of one on the paper
COVERED = {  # method -> its name in the figure of coverage
    BEATS: "occlusion, by window",
    CYCLE: "occlusion, in every beat",
    ATTENTION: "attention",
    SHUFFLED: "attention, shuffled ECG",
}
DARKEST = 0.75  # opacity of the highest score
LOUDEST = 99.0  # percentile of the scores that is drawn darkest


def rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The numbers of the shading: one row an example and position."""
    found = []
    for name, example in zip("abcdefgh", examples, strict=False):
        positions = len(example.maps[ATTENTION])
        each = _seconds(example) / positions
        groups = dict(zip(LEAD_GROUPS, example.lead_groups, strict=True))
        for place in range(positions):
            middle = (place + 0.5) * each
            found.append(
                {
                    "panel": name,
                    "second": round(place * each, 4),
                    **{method: example.maps[method][place] for method, _, _ in PANELS},
                    **{f"occlusion of {group}": values[place] for group, values in groups.items()},
                    "finding": any(first <= middle <= last for first, last in example.spans) if example.spans else None,
                }
            )
    return found


def coverage_rows(summary: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the figure of coverage shows."""
    return [dict(row) for row in summary if row["measure"] == "covered" and _drawn(row) and row["method"] in COVERED]


def _drawn(row: Mapping[str, Any]) -> bool:
    """All findings of each kind, and over all kinds also those that are read off the ECG."""
    return row["findings"] == EVERY or (row["kind"], row["findings"]) == ("all", READ)


def _group(row: Mapping[str, Any]) -> str:
    return str(row["kind"]) if row["findings"] == EVERY else READ


@style.in_style
def draw_attention(examples: Sequence[Example]) -> Figure:
    """Attention, occlusion and the shuffled control over each example's ECG.

    Raises:
        DataError: without examples.
    """
    figure, columns = _columns(examples, len(PANELS), 3.55)
    for column, (name, example) in enumerate(zip("abcdefgh", examples, strict=False)):
        for row, (method, title, colour) in enumerate(PANELS):
            axes = columns[row][column]
            _paper(axes, example, SHOWN_LEADS, PAPER)
            shade(axes, np.array(example.maps[method]), colour, _seconds(example), PAPER)
            _mark(axes, example, PAPER)
            darkest = float(np.percentile(example.maps[method], LOUDEST))
            size = f"{darkest:.2g} nats" if method == BEATS else f"{100 * darkest:.2g} %"
            told = f"{title} (darkest: {size})"
            axes.set_title(told, loc="left", fontsize=style.FONT, pad=2, color=colour if row < 2 else style.INK)
        _head(columns[0][column], name, example)
        _foot(columns[-1][column], example, PAPER)
    return figure


@style.in_style
def draw_lead_groups(examples: Sequence[Example]) -> Figure:
    """Occlusion by lead group and window: all twelve leads, each shaded by its group's score.

    Raises:
        DataError: without examples.
    """
    paper = Paper(row_height=15.0, gain=5.0, background="#ffffff", line_width=0.6)
    figure, columns = _columns(examples, 1, 4.1)
    for column, (name, example) in enumerate(zip("abcdefgh", examples, strict=False)):
        axes = columns[0][column]
        leads = [lead for group in LEAD_GROUPS.values() for lead in group]
        _paper(axes, example, leads, paper)
        values = np.array(example.lead_groups)
        top = max(float(np.percentile(values, LOUDEST)), 1e-9)
        height = len(leads) * paper.row_height
        for row, scores in enumerate(values):
            band = (height - 3 * (row + 1) * paper.row_height, height - 3 * row * paper.row_height)
            _shade_band(axes, scores / top, style.VERMILION, _seconds(example) * paper.speed, band)
            if row:
                axes.axhline(band[1], color=style.INK, linewidth=0.5, zorder=4)
        _mark(axes, example, paper)
        _head(axes, name, example)
        _foot(axes, example, paper)
    return figure


@style.in_style
def draw_coverage(summary: Sequence[Mapping[str, Any]], methods: Mapping[str, str] = COVERED) -> Figure:
    """Coverage of the finding by the top fifth of the windows, by kind of finding and method, against chance.

    Beside all findings stand those that the model affirms and reads off the ECG, see `summarise`.

    Args:
        summary: rows of `summary.csv`, as text or numbers.
        methods: method -> its name in the legend, in the order of drawing.

    Raises:
        DataError: if the summary has no such rows.
    """
    some = [row for row in summary if row["measure"] == "covered" and _drawn(row)]
    kinds = list(dict.fromkeys(_group(row) for row in some))
    if not some:
        raise DataError("has no coverage to draw", where="summary.csv", remedy="Run `heartllm-eval measure attention`.")
    figure = style.new_figure(style.COLUMN, 2.5)
    axes = figure.subplots()
    looks = (("", style.VERMILION), ("///", style.ORANGE), ("", style.BLUE), ("...", style.GREY), ("xxx", style.SKY))
    width = 0.8 / len(methods)
    for number, ((method, label), (hatch, colour)) in enumerate(zip(methods.items(), looks, strict=False)):
        for place, kind in enumerate(kinds):
            chosen = [row for row in some if row["method"] == method and _group(row) == kind]
            if not chosen:
                continue
            value = float(chosen[0]["value"])
            x = place + (number - (len(methods) - 1) / 2) * width
            axes.bar(x, value, width * 0.92, color=colour, hatch=hatch, label=label if place == 0 else None)
            if chosen[0]["low"] not in (None, ""):
                low, high = float(chosen[0]["low"]), float(chosen[0]["high"])
                axes.plot([x, x], [low, high], color=style.INK, linewidth=0.8)
    chance = float(some[0]["chance"])
    axes.axhline(chance, color=style.INK, linewidth=0.8, linestyle="--", label="chance")
    counts = {kind: max(int(row["samples"]) for row in some if _group(row) == kind) for kind in kinds}
    names = {kind: textwrap.fill(kind, 8) for kind in kinds}
    axes.set_xticks(range(len(kinds)), [f"{names[kind]}\n(n={counts[kind]})" for kind in kinds])
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of finding covered")
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.0)
    style.mark_synthetic(figure)
    return figure


def shade(axes: Axes, scores: Floats, colour: str, seconds: float, paper: Paper) -> None:
    """Lays scores (N,) over the ECG: none at the lowest (occlusion: at 0 and below), darkest at the highest 1 %."""
    low = min(float(scores.min()), 0.0) if (scores < 0).any() else float(scores.min())
    floor = 0.0 if low < 0 else low
    top = max(float(np.percentile(scores, LOUDEST)) - floor, 1e-12)
    _shade_band(axes, (scores - floor) / top, colour, seconds * paper.speed, axes.get_ylim())


def _shade_band(axes: Axes, strength: Floats, colour: str, width: float, band: tuple[float, float]) -> None:
    from matplotlib.colors import to_rgba

    image = np.tile(np.array(to_rgba(colour)), (1, len(strength), 1))
    image[0, :, 3] = DARKEST * np.clip(strength, 0.0, 1.0)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.imshow(image, extent=(0.0, width, *band), aspect="auto", interpolation="nearest", zorder=2)
    axes.set(xlim=limits[0], ylim=limits[1])


def _columns(examples: Sequence[Example], panels: int, height: float) -> tuple[Figure, Any]:
    if not examples:
        raise DataError(
            "has no example to draw", where="examples.json", remedy="Measure with more recordings, or give --example."
        )
    figure = style.new_figure(style.COLUMN if len(examples) == 1 else style.PAGE, height)
    return figure, figure.subplots(panels, len(examples), squeeze=False)


def _seconds(example: Example) -> float:
    return len(example.signal[0]) / SHOWN_RATE


def _paper(axes: Axes, example: Example, leads: Sequence[str], paper: Paper) -> None:
    """The ECG on its grid, each lead's name at its left."""
    signal = (np.array(example.signal) / 1000).astype(np.float32)
    plot_strips(axes, Recording(signal, SHOWN_RATE), leads, seconds=_seconds(example), paper=paper, scale=SCALE)
    for row, lead in enumerate(leads):
        middle = (len(leads) - row - 0.5) * paper.row_height
        axes.text(-3.0, middle, lead, fontsize=style.FONT, ha="right", va="center")


def _mark(axes: Axes, example: Example, paper: Paper) -> None:
    """A bar under the ECG where the finding is known to lie."""
    for first, last in example.spans:
        axes.plot(
            [first * paper.speed, last * paper.speed],
            [0, 0],
            color=style.GREEN,
            linewidth=3.5,
            solid_capstyle="butt",
            zorder=6,
            clip_on=False,
        )


def _head(axes: Axes, name: str, example: Example) -> None:
    wrapped = "\n".join(textwrap.wrap(f"{name}  {example.title}", 46))
    above = 1.16 if axes.get_title(loc="left") else 1.0
    axes.text(
        0.0,
        above,
        wrapped,
        transform=axes.transAxes,
        fontsize=style.FONT,
        fontweight="bold",
        va="bottom",
        linespacing=1.15,
    )


def _foot(axes: Axes, example: Example, paper: Paper) -> None:
    about = f"{_seconds(example):g} s, {paper.gain:g} mm/mV; "
    known = "green: the finding; " if example.spans else "the finding's place is not known; "
    axes.text(
        0.0,
        -0.05,
        "\n".join(textwrap.wrap(about + known + example.source, 58)),
        transform=axes.transAxes,
        fontsize=style.FONT,
        va="top",
        color=style.INK,
    )


assert set(SHOWN_LEADS) <= set(LEADS)

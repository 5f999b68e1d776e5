"""Figures about the codec, drawn from the rows that `heartllm_eval.figures.codec_measures` measured.

rate_distortion   bits a second against error, correlation and what a probe reads
code_usage        how often each code occurs
denoising         SNR in against SNR out
readings          errors of intervals, amplitudes and axis read off copies; readings_noise, of copies of noisy ECGs
reconstruction    figure 4 c: an ECG, its copies, and the copies of it with noise

Rows are those of the CSV files, as text or as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heartllm.errors import DataError
from heartllm_eval.figures.codec_measures import perplexity
from heartllm_eval.figures.style import (
    BLACK,
    BLUE,
    COLUMN,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PAGE,
    PURPLE,
    VERMILION,
    Look,
    in_style,
    letter,
    mark_synthetic,
    new_figure,
    read_csv,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
LOOKS = {
    "codec": Look(BLUE, "o"),
    "DCT": Look(ORANGE, "s"),
    "PCA": Look(GREEN, "^"),
    "linear twin": Look(PURPLE, "D"),
    "ECG-Byte": Look(VERMILION, "*"),
    "low pass 40 Hz": Look(GREY, "v"),
    "low pass 20 Hz": Look(GREY, "P"),
    "no codec": Look(BLACK, "x"),
}
# Where each figure's rows lie in the data folder; a folder holds a file a dataset.
PLACES = {
    "rate_distortion": "codec/rate_distortion",
    "code_usage": "codec/code_usage",
    "denoising": "codec/denoising.csv",
    "readings": "codec/readings",
    "readings_noise": "codec/readings_noise.csv",
    "reconstruction": "codec/reconstruction.csv",
}
# Where a panel's axis turns from even to logarithmic, and its ticks.
SCALES: dict[str, tuple[float, tuple[float, ...]]] = {
    "ms": (10.0, (0, 5, 10, 30, 100)),
    "mV": (0.05, (0, 0.02, 0.05, 0.2, 1)),
    "degrees": (5.0, (0, 2, 5, 15, 50)),
}
RARE = "PR interval"  # what is not found in every copy
DATASETS = {"ptbxl": "PTB-XL", "synthetic-a": "synthetic A", "synthetic-b": "synthetic B"}


def read_rows(place: Path) -> list[dict[str, str]]:
    """The rows of a data file, or of all in a folder one after another.

    Raises:
        DataError: where there is none.
    """
    paths = sorted(place.glob("*.csv")) if place.is_dir() else [place]
    if not paths:
        raise DataError("holds no data", where=place, remedy="Run heartllm-eval measure codec, and measure denoising.")
    return [row for path in paths for row in read_csv(path)]


def number(row: Mapping[str, Any], name: str) -> float:
    """A cell as a number; NaN where it is empty."""
    value = row[name]
    return float("nan") if value in (None, "") else float(value)


def name_of(row: Mapping[str, Any]) -> str:
    """The system as `LOOKS` names it: a low pass goes by its cutoff."""
    return f"low pass {row['setting']}" if row["system"] == "low pass" else str(row["system"])


@in_style
def draw_rate_distortion(rows: Rows) -> Figure:
    """A row of panels a dataset: RMSE, correlation, and AUC of a probe, against bits a second."""
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in rows))
    kinds = [("rmse_mv", "RMSE, mV"), ("correlation", "correlation")]
    if any(not np.isnan(number(row, "probe_auc")) for row in rows):
        kinds.append(("probe_auc", "probe AUC on the copy"))
    figure = new_figure(PAGE, 0.35 + 1.95 * len(datasets))
    grid = figure.subplots(len(datasets), len(kinds), squeeze=False)
    for line, dataset in enumerate(datasets):
        mine = [row for row in rows if row["dataset"] == dataset]
        for column, (value, label) in enumerate(kinds):
            axes = grid[line, column]
            _rates(axes, mine, value)
            axes.set_ylabel(label)
            letter(axes, f"{'abcdefghi'[line * len(kinds) + column]}  {DATASETS.get(dataset, dataset)}")
            if line == len(datasets) - 1:
                axes.set_xlabel("bits a second")
    handles, labels = _legend(grid.flatten())
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    if all(dataset.startswith("synthetic") for dataset in datasets):
        mark_synthetic(figure)
    return figure


def _rates(axes: Axes, rows: Rows, value: str) -> None:
    for name in dict.fromkeys(str(row["system"]) for row in rows):
        mine = [row for row in rows if row["system"] == name]
        y = np.array([number(row, value) for row in mine])
        if name == "original":
            if not np.isnan(y[0]):
                axes.axhline(y[0], color=GREY, linestyle="--", linewidth=0.8, label="original")
            continue
        x = np.array([number(row, "bits_per_second") for row in mine])
        look = LOOKS[name]
        order = np.argsort(x)
        line = "-" if name in ("DCT", "PCA") else "none"
        size = {"codec": 6.5, "ECG-Byte": 6.0}.get(name, 4.0)
        axes.plot(
            x[order],
            y[order],
            linestyle=line,
            marker=look.marker,
            color=look.colour,
            label=name,
            markersize=size,
            zorder=3,
        )
        stem = {"rmse_mv": "rmse", "probe_auc": "probe"}.get(value, value)
        low, high = (np.array([number(row, f"{stem}_{side}") for row in mine]) for side in ("low", "high"))
        axes.vlines(x, low, high, color=look.colour, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xticks([100, 300, 1000, 3000], ["100", "300", "1,000", "3,000"])
    axes.minorticks_off()
    axes.grid(axis="y")


@in_style
def draw_code_usage(rows: Rows) -> Figure:
    """Share of each code by rank, on logarithmic axes, a line a dataset; a flat line would be full use."""
    figure = new_figure(COLUMN, 2.2)
    axes = figure.subplots()
    colours = (BLUE, VERMILION, GREEN, ORANGE)
    for place, dataset in enumerate(dict.fromkeys(str(row["dataset"]) for row in rows)):
        share = np.array([number(row, "share") for row in rows if row["dataset"] == dataset])
        used = share > 0
        text = f"{DATASETS.get(dataset, dataset)}: {used.sum():,} of {len(share):,}, perplexity {perplexity(share):.0f}"
        style = ("-", "--", "-.", ":")[place % 4]
        axes.loglog(
            1 + np.flatnonzero(used), share[used], linestyle=style, color=colours[place % 4], label=text, zorder=3
        )
    axes.axhline(1 / len(share), color=GREY, linewidth=0.8, linestyle=":", label="all alike")
    axes.set(xlabel="codes by rank", ylabel="share of all codes")
    axes.grid()
    axes.legend(loc="lower left")
    return figure


@in_style
def draw_denoising(rows: Rows) -> Figure:
    """A column a kind of noise. Above: SNR out, of the copy against the clean ECG. Below: of the copy against the copy
    of the clean ECG, which counts only noise that got through."""
    kinds = list(dict.fromkeys(str(row["noise"]) for row in rows))
    figure = new_figure(PAGE, 4.1)
    grid = figure.subplots(2, len(kinds), squeeze=False, sharex=True, sharey="row")
    titles = {"white": "white noise", "muscle": "muscle noise", "wander": "baseline wander"}
    for column, kind in enumerate(kinds):
        for line, value in enumerate(("snr_out", "snr_kept")):
            axes = grid[line, column]
            _snr(axes, [row for row in rows if row["noise"] == kind], value)
            letter(axes, f"{'abcdefghi'[line * len(kinds) + column]}  {titles.get(kind, kind)}")
            if line:
                axes.set_xlabel("SNR in, dB")
    grid[0, 0].set_ylabel("SNR out, dB,\nagainst the clean ECG")
    grid[1, 0].set_ylabel("SNR out, dB,\nagainst its clean copy")
    handles, labels = _legend(grid.flatten())
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    mark_synthetic(figure, f"{rows[0]['recordings']} synthetic ECGs")
    return figure


def _snr(axes: Axes, rows: Rows, value: str) -> None:
    levels = sorted({number(row, "snr_in") for row in rows})
    axes.plot(levels, levels, color=INK, linewidth=0.8, linestyle=":", label="as it came")
    for name in dict.fromkeys(name_of(row) for row in rows):
        mine = sorted((row for row in rows if name_of(row) == name), key=lambda row: number(row, "snr_in"))
        x, y = (np.array([number(row, key) for row in mine]) for key in ("snr_in", value))
        look = LOOKS[name]
        line = "--" if name.startswith("low pass") else "-"
        axes.plot(x, y, line, marker=look.marker, color=look.colour, label=name, zorder=3)
        if value == "snr_out":
            low, high = (np.array([number(row, f"snr_out_{side}") for row in mine]) for side in ("low", "high"))
            axes.fill_between(x, low, high, color=look.colour, alpha=0.12, linewidth=0)
    axes.grid()


@in_style
def draw_readings(rows: Rows) -> Figure:
    """A panel a figure that is read off an ECG: median error with its interval, by system, one sign an input.

    The last panel says in how many of the copies the PR interval was found at all, of those whose original shows one.
    """
    datasets = list(dict.fromkeys(str(row["dataset"]) for row in rows))
    figures = list(dict.fromkeys(str(row["figure"]) for row in rows))
    names = [name for name in LOOKS if name in {name_of(row) for row in rows}]
    # One sign a kind of input; where several datasets are shown, a dataset.
    signs = list(dict.fromkeys(_sign(row, datasets) for row in rows))
    figure = new_figure(PAGE, 0.6 + 0.8 * 2 + 0.2 * 2 * len(names))
    grid = figure.subplots(2, 4, squeeze=False, sharey=True).flatten()
    shades = dict(zip(signs, ((BLUE, "o"), (ORANGE, "s"), (VERMILION, "^")), strict=False))
    for place, (axes, what) in enumerate(zip(grid, figures, strict=False)):
        for step, sign in enumerate(signs):
            mine = {name_of(row): row for row in rows if row["figure"] == what and _sign(row, datasets) == sign}
            y = np.array([names.index(name) for name in mine]) + 0.22 * (step - (len(signs) - 1) / 2)
            x, low, high, share = (
                np.array([number(row, key) for row in mine.values()])
                for key in ("median_error", "low", "high", "found")
            )
            colour, marker = shades[sign]
            axes.hlines(y, low, high, color=colour, linewidth=0.9)
            axes.plot(x, y, marker=marker, linestyle="", color=colour, label=sign, markersize=3.5)
            if what == RARE:
                grid[len(figures)].plot(100 * share, y, marker=marker, linestyle="", color=colour, markersize=3.5)
        unit = next(str(row["unit"]) for row in rows if row["figure"] == what)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        straight, ticks = SCALES[unit]
        axes.set_xscale("symlog", linthresh=straight, linscale=1.0)
        axes.set_xlim(0, ticks[-1])
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(f"median error, {unit}")
        axes.grid(axis="x")
        letter(axes, f"{'abcdefghi'[place]}  {what}")
    last, *spare = grid[len(figures) :]
    last.set(xlim=(-4, 104), xticks=[0, 50, 100], xlabel="% of copies")
    last.grid(axis="x")
    letter(last, f"{'abcdefghi'[len(figures)]}  {RARE} found")
    for axes in spare:
        axes.set_axis_off()
    handles, labels = _legend(grid)
    grid[-1].legend(handles, labels, loc="center left")
    if all(dataset.startswith("synthetic") for dataset in datasets):
        mark_synthetic(figure, f"{rows[0]['recordings']} synthetic ECGs")
    return figure


def _sign(row: Mapping[str, Any], datasets: Sequence[str]) -> str:
    dataset = str(row["dataset"])
    return DATASETS.get(dataset, dataset) if len(datasets) > 1 else str(row["input"])


@in_style
def draw_reconstruction(rows: Rows) -> Figure:
    """Figure 4 c: a line a lead. The clean ECG lies in grey below every track."""
    leads = list(dict.fromkeys(str(row["lead"]) for row in rows))
    tracks = [
        ("codec of clean", "codec, clean ECG", BLUE),
        ("noisy", "noise added", INK),
        ("codec of noisy", "codec, noisy ECG", BLUE),
        ("DCT of noisy", "DCT, same bits", ORANGE),
    ]
    figure = new_figure(PAGE, 0.45 + 1.15 * len(leads))
    grid = figure.subplots(len(leads), len(tracks), squeeze=False, sharex=True, sharey="row")
    for line, lead in enumerate(leads):
        mine = [row for row in rows if row["lead"] == lead]
        seconds, clean = (np.array([number(row, key) for row in mine]) for key in ("seconds", "clean"))
        for column, (key, title, colour) in enumerate(tracks):
            axes = grid[line, column]
            axes.plot(seconds, clean, color="#B8B8B8", linewidth=1.8, solid_joinstyle="round")
            axes.plot(seconds, [number(row, key) for row in mine], color=colour, linewidth=0.7)
            axes.grid(color=LIGHT, linewidth=0.4)
            if line == 0:
                letter(axes, f"{'abcd'[column]}  {title}")
            if line == len(leads) - 1:
                axes.set_xlabel("seconds")
        grid[line, 0].set_ylabel(f"{lead}, mV")
    mark_synthetic(figure, "synthetic ECG, muscle noise at 5 dB; grey: the clean ECG")
    return figure


def _legend(panels: Iterable[Axes]) -> tuple[list[Any], list[str]]:
    """Handles and labels of all panels, each label once."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


DRAW: dict[str, Callable[[Rows], Figure]] = {
    "rate_distortion": draw_rate_distortion,
    "code_usage": draw_code_usage,
    "denoising": draw_denoising,
    "readings": draw_readings,
    "readings_noise": draw_readings,
    "reconstruction": draw_reconstruction,
}


def drawn(name: str, place: Path) -> tuple[Figure, list[dict[str, str]]]:
    """A figure of `PLACES` from its data file or folder, and its rows."""
    rows = read_rows(place)
    return DRAW[name](rows), rows

"""How every figure looks, and how it is written: the same bytes each time, with the numbers behind it.

Sizes are those of a two-column page. Colours are Okabe and Ito's, which readers with any colour vision tell apart; each
system has one colour, marker and hatch in all figures, so that colour is never the only sign.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from heartllm.errors import DataError
from heartllm.writing import write_atomically, write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.35  # inches: one column of a two-column page
PAGE = 6.9  # inches: both columns
FONT = 7.0  # points: nothing in a figure is smaller
DPI = 300  # of the PNG, and of what is rasterised inside the SVG

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, LIGHT, INK = "#8A8A8A", "#D9D9D9", "#222222"

SYNTHETIC = "synthetic ECGs"


@dataclass(frozen=True)
class Look:
    """A system's signs: fill colour, line marker, bar hatch."""

    colour: str
    marker: str
    hatch: str = ""


SYSTEMS = {
    "HeartLLM": Look(BLUE, "o"),
    "w/o TAB": Look(SKY, "s", "///"),
    "w/o FT": Look(GREEN, "^", "\\\\\\"),
    "w/o DISC": Look(PURPLE, "D", "..."),
    "TEST": Look(ORANGE, "v", "xxx"),
    "Time-LLM": Look(VERMILION, "P", "---"),
    "CLIP": Look(BLACK, "X", "+++"),
    "ECG-Byte": Look(YELLOW, "*", "|||"),
}
CONTROL = Look(GREY, ".")

_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so glyphs are the same everywhere
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT + 0.5,
    "xtick.labelsize": FONT,
    "ytick.labelsize": FONT,
    "legend.fontsize": FONT,
    "figure.titlesize": FONT + 1,
    "figure.labelsize": FONT,
    "mathtext.fontset": "dejavusans",
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "svg.hashsalt": "heartllm",  # ids inside the SVG depend on its content, not on the day
    "svg.fonttype": "path",
    "savefig.dpi": DPI,
    "figure.dpi": 100,
}

P = ParamSpec("P")


def look(system: str) -> Look:
    """The signs of a system by its name in tables; grey for controls and for what is not known."""
    return SYSTEMS.get(system, CONTROL)


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib with these settings, whatever the user's own are; nothing of it stays behind."""
    import matplotlib.style

    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def in_style(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Decorates a drawing function: it runs with the settings of this module."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with styled():
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches that belongs to no window; its axes are laid out so that nothing overlaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02)
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def mark_synthetic(figure: Figure, note: str = SYNTHETIC) -> None:
    """Says at the lower right that the data are synthetic; the layout keeps the room for it."""
    with styled():
        figure.supxlabel(note, x=0.995, ha="right", fontsize=FONT, style="italic", color="#555555")


def letter(axes: Axes, name: str) -> None:
    """A panel's letter, above its upper left corner."""
    axes.set_title(name, loc="left", fontweight="bold", fontsize=FONT + 1)


def smallest_font(figure: Figure) -> float:
    """The size in points of the smallest visible text of a figure."""
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return min((float(text.get_fontsize()) for text in texts), default=float("inf"))


def save(figure: Figure, folder: Path, stem: str, rows: Sequence[Mapping[str, object]]) -> tuple[Path, Path, Path]:
    """Writes `stem`.svg, .png and .csv to `folder`; the same figure and rows give the same bytes.

    Args:
        rows: the numbers that the figure shows, one a row, all with the same columns.

    Returns:
        The paths of the SVG, the PNG and the CSV.

    Raises:
        DataError: where there are no rows, or their columns differ.
    """
    text = csv_text(rows, where=stem)
    folder.mkdir(parents=True, exist_ok=True)
    vector, bitmap, table = (folder / f"{stem}.{kind}" for kind in ("svg", "png", "csv"))
    with styled():
        plain = {"Date": None, "Creator": None}
        write_atomically(vector, lambda part: figure.savefig(part, format="svg", metadata=plain))
        write_atomically(bitmap, lambda part: figure.savefig(part, format="png", dpi=DPI, metadata={"Software": None}))
    write_whole(table, text)
    return vector, bitmap, table


def csv_text(rows: Sequence[Mapping[str, object]], *, where: str | Path = "figure") -> str:
    """Rows as CSV with a header; floats with six significant digits, None as an empty cell.

    Raises:
        DataError: where there are no rows, or their columns differ.
    """
    remedy = "Give the numbers that the figure shows, one a row, all with the same columns."
    if not rows:
        raise DataError("has no numbers behind it", where=where, remedy=remedy)
    names = list(rows[0])
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        if list(row) != names:
            raise DataError(f"rows differ in their columns ({names} and {list(row)})", where=where, remedy=remedy)
        writer.writerow([_cell(value) for value in row.values()])
    return file.getvalue()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that `save` or a measurement wrote, as text.

    Raises:
        DataError: where it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy="Measure it again.") from None


def _cell(value: object) -> str:
    """One value as CSV text. numpy's floats are Python floats to isinstance, or become ones here."""
    if value is None:
        return ""
    if isinstance(value, (bool, int, str)):
        return str(value)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
    return f"{number:.6g}"

"""Figure 1: UMAP of ECG and text vectors, a column a system, with the numbers that do not depend on UMAP.

measure   checkpoint + recordings -> <system>.json (points, numbers, what they were measured on)
draw      those files -> the figure
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError, UsageError
from heartllm.writing import write_whole
from heartllm_eval.figures.embedding_measures import (
    RESAMPLES,
    Cloud,
    as_rows,
    balanced,
    find,
    retrieval,
    separation,
    umap_points,
)
from heartllm_eval.figures.style import BLUE, COLUMN, PAGE, VERMILION, in_style, mark_synthetic, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = 1
LEVELS = {"input": "what enters the LLM", "state": "what the LLM makes of it"}
MODALITIES = {"ecg": ("ECG", VERMILION, "o"), "text": ("text", BLUE, "^")}
MOST = 400  # vectors of each modality in a panel
NARROW = 5  # panels; beside more there is no room for intervals
# The order of the panels; a system that is not named here comes last.
ORDER = ("TEST", "Time-LLM", "CLIP", "w/o DISC", "ECG-Byte", "HeartLLM", "untrained")
_SAME = ("dataset", "split", "recordings", "patients", "seed", "width")


@dataclass(frozen=True)
class Panel:
    """One system's column.

    Attributes:
        system: its name.
        measured: dataset, split, recordings, patients, seed, width (of a vector), checkpoint.
        numbers: rows of `heartllm_eval.figures.embedding_measures.as_rows`.
        points: level -> modality -> points [x, y].
    """

    system: str
    measured: dict[str, Any]
    numbers: list[dict[str, Any]]
    points: dict[str, dict[str, list[list[float]]]]


def measure(
    system: str, clouds: dict[str, Cloud], measured: dict[str, Any], *, seed: int = 0, resamples: int = RESAMPLES
) -> Panel:
    """Numbers and UMAP points of a system's clouds by level; retrieval where ECGs and texts are paired."""
    numbers: list[dict[str, Any]] = []
    points = {}
    for level, cloud in clouds.items():
        same = balanced(cloud, most=MOST, seed=seed)
        found = separation(same, resamples=resamples, seed=seed)
        if cloud.pairs is not None:
            found += retrieval(cloud, resamples=resamples, seed=seed)
        numbers += as_rows(system, level, found)
        flat = [[round(float(x), 3), round(float(y), 3)] for x, y in umap_points(same, seed=seed)]
        points[level] = {"ecg": flat[: len(same.ecg)], "text": flat[len(same.ecg) :]}
    width = {cloud.ecg.shape[1] for cloud in clouds.values()}
    return Panel(system, {**measured, "seed": seed, "width": max(width)}, numbers, points)


def file_name(system: str) -> str:
    """The data file of a system: "w/o TAB" -> w-o-tab.json."""
    return re.sub(r"[^a-z0-9]+", "-", system.lower()).strip("-") + ".json"


def write_panel(panel: Panel, folder: Path) -> Path:
    """Writes a panel's data file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(panel.system)
    text = json.dumps({"schema": SCHEMA, **asdict(panel)}, ensure_ascii=False)
    write_whole(path, re.sub(r'(\{"system"|"numbers"|"points"|"ecg"|"text"|"input"|"state")', r"\n\1", text) + "\n")
    return path


def read_panel(path: Path) -> Panel:
    """Reads a data file.

    Raises:
        DataError: where it is not one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("another version")
        return Panel(**data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"is not a file of embeddings ({error})", where=path, remedy="Run heartllm-eval measure embeddings again."
        ) from None


def read_panels(folder: Path) -> list[Panel]:
    """All panels of a folder, in the order of the figure.

    Raises:
        DataError: where there is none.
    """
    panels = [read_panel(path) for path in sorted(folder.glob("*.json"))]
    if not panels:
        raise DataError("holds no embeddings", where=folder, remedy="Run heartllm-eval measure embeddings.")
    return sorted(panels, key=lambda panel: ORDER.index(panel.system) if panel.system in ORDER else len(ORDER))


def rows(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """The numbers of all panels, for the CSV beside the figure."""
    return [row for panel in panels for row in panel.numbers]


@in_style
def draw_embeddings(panels: Sequence[Panel]) -> Figure:
    """A column a system, a row a level; below each panel its numbers with 95 % intervals by patient.

    Raises:
        UsageError: where systems were measured on other recordings, or their language models differ in width.
    """
    check_same(panels)
    levels = [level for level in LEVELS if level in panels[0].points]
    side = min(1.32, (PAGE - 0.25) / len(panels))  # of a panel, in inches
    width = PAGE if len(panels) > 3 else max(COLUMN, 0.25 + side * len(panels))
    brief = len(panels) > NARROW
    lines = [max(_caption(panel, level, brief).count("\n") + 1 for panel in panels) for level in levels]
    figure = new_figure(width, 0.7 + sum(side + 0.1 + 0.12 * count for count in lines))
    grid = figure.subplots(len(levels), len(panels), squeeze=False)
    for row, level in enumerate(levels):
        for column, panel in enumerate(panels):
            axes = grid[row, column]
            _scatter(axes, panel.points[level])
            axes.set_xlabel(_caption(panel, level, brief), linespacing=1.25, labelpad=3)
            if row == 0:
                axes.set_title(panel.system, fontweight="bold")
        grid[row, 0].set_ylabel(LEVELS[level])
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, markerscale=2.5)
    about = panels[0].measured
    made = "synthetic ECGs" if str(about["dataset"]).startswith("synthetic") else f"ECGs of {about['dataset']}"
    foot = f"{reference_levels(panels)}  |  {about['recordings']} {made}"
    mark_synthetic(figure, foot if width == PAGE else foot.replace("  |  ", "\n").replace("; ", "\n"))
    return figure


def check_same(panels: Sequence[Panel]) -> None:
    """Refuses systems that were measured on different ground.

    Raises:
        UsageError: naming the two systems and what differs.
    """
    if not panels:
        raise UsageError("no system", where="embeddings", remedy="Measure one: heartllm-eval measure embeddings.")
    first = panels[0]
    for other in panels[1:]:
        for key in _SAME:
            if first.measured.get(key) != other.measured.get(key):
                raise UsageError(
                    f"{first.system} was measured with {key} = {first.measured.get(key)} and {other.system} with "
                    f"{other.measured.get(key)}",
                    where="embeddings",
                    remedy="Measure all systems with the same dataset, -n, seed and language model.",
                )


def _scatter(axes: Axes, points: dict[str, list[list[float]]]) -> None:
    for modality, (name, colour, marker) in MODALITIES.items():
        x, y = zip(*points[modality], strict=True)
        axes.scatter(
            x, y, s=5, color=colour, marker=marker, linewidths=0, alpha=0.55, label=name, rasterized=True, gid=modality
        )
    axes.set(xticks=[], yticks=[])
    axes.set_box_aspect(1)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#B0B0B0")


def _caption(panel: Panel, level: str, brief: bool) -> str:
    """The lines below a panel; `brief` ones have no intervals, which are in the CSV."""
    lines = []
    for measured, text in (
        ("probe AUC", "AUC"),
        ("kNN mixing", "mixing"),
        ("recall@10", "R@10"),
        ("mapped@10", "map@10"),
    ):
        row = find(panel.numbers, level, measured)
        if row is not None:
            lines.append(f"{text} {_short(row['value'])}{'' if brief else _range(row)}")
    return "\n".join(lines)


def reference_levels(panels: Sequence[Panel]) -> str:
    """What the numbers below the panels would be without any knowledge, for the figure's foot."""
    row, common = find(panels[0].numbers, "state", "recall@10"), find(panels[0].numbers, "state", "commonest@10")
    told = "mixed: AUC .50, mixing 1"
    return (
        told
        if row is None or common is None
        else (f"{told}; @10 by chance {_short(row['chance'])}, by the commonest reports {_short(common['value'])}")
    )


def _range(row: Mapping[str, Any]) -> str:
    return "" if row["low"] is None else f" [{_short(row['low'])}, {_short(row['high'])}]"


def _short(value: float) -> str:
    """Two decimals without the leading zero: .06, 1.00."""
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0.") else text

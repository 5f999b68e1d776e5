"""Figure 3: the full model and its ablations, with intervals, and below the paired differences that decide.

Intervals of the bars are wide because patients differ, and that difference is common to all systems; whether one system
is better is told by the paired differences in the second row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError
from heartllm_eval.figures.scores import Score, ordered, seeds_of, whisker
from heartllm_eval.figures.style import (
    GREY,
    INK,
    PAGE,
    SYSTEMS,
    YELLOW,
    in_style,
    letter,
    look,
    mark_synthetic,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Reports": ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-1", "ROUGE-2", "ROUGE-L"),
    "Exact match": ("verify", "choose", "query"),
}
ROOM = 0.8  # of the distance between two metrics that their bars fill


def rows(scores: Sequence[Score], differences: Sequence[Score] = ()) -> list[dict[str, Any]]:
    """What the figure shows, for the CSV beside it."""
    shown = [("score", score) for score in scores] + [("difference to the full model", score) for score in differences]
    return [{"what": what, **{k: v for k, v in asdict(score).items() if k != "at"}} for what, score in shown]


@in_style
def draw_ablation(
    scores: Sequence[Score],
    differences: Sequence[Score] = (),
    *,
    groups: Mapping[str, Sequence[str]] = GROUPS,
    floor: str = "blind",
    unit: str = "%",
    synthetic: bool = False,
) -> Figure:
    """Bars by metric and system with intervals, a panel a group.

    Args:
        scores: of all systems; a system without a score in a metric leaves a gap.
        differences: each system's score less the full model's, with paired intervals; a second row where given.
        groups: panel -> its metrics, in order; what is not named is not drawn.
        floor: a control that is drawn as a line through each metric's bars: what needs no ECG.

    Raises:
        DataError: where no score belongs to a group, or one comes twice.
    """
    by_key = _index(scores)
    groups = {
        title: [name for name in names if any(metric == name for _, metric in by_key)]
        for title, names in groups.items()
    }
    groups = {title: names for title, names in groups.items() if names}
    if not groups:
        raise DataError("no score belongs to the figure", where="ablation", remedy="Freeze the ablations' runs first.")
    systems = [name for name in ordered((score.system for score in scores), list(SYSTEMS)) if name != floor]
    figure = new_figure(PAGE, 3.6 if differences else 2.3)
    widths = [len(names) for names in groups.values()]
    grid = figure.subplots(
        2 if differences else 1,
        len(groups),
        squeeze=False,
        width_ratios=widths,
        sharex="col",
        sharey="row",
        height_ratios=[3, 2] if differences else [1],
    )
    paired = _index(differences)
    for column, (title, names) in enumerate(groups.items()):
        _bars(grid[0, column], by_key, systems, names, floor)
        letter(grid[0, column], f"{'abcdef'[column]}  {title}")
        if differences:
            _differences(grid[1, column], paired, [name for name in systems if name != systems[0]], names)
        grid[-1, column].set_xticks(range(len(names)), names)
        grid[-1, column].set_xlim(-0.6, len(names) - 0.4)
    grid[0, 0].set_ylim(bottom=0)  # only now: a limit that is set ends the scaling to panels that are still to come
    grid[0, 0].set_ylabel(f"score, {unit}")
    if differences:
        grid[1, 0].set_ylabel(f"difference to\n{systems[0]}, points")
    handles: dict[str, Any] = {}
    for axes in grid[0]:
        handles.update({label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)})
    seeds = {name: f"{name} ({seeds_of(s for s in scores if s.system == name)})" for name in systems}
    names = list(dict.fromkeys(name for name in (*systems, *handles) if name in handles))  # the floor last
    figure.legend(
        [handles[name] for name in names],
        [seeds.get(name, name) for name in names],
        loc="outside upper center",
        ncols=min(5, len(names)),
        columnspacing=1.2,
    )
    if synthetic:
        mark_synthetic(figure)
    return figure


def _index(scores: Sequence[Score]) -> dict[tuple[str, str], Score]:
    found: dict[tuple[str, str], Score] = {}
    for score in scores:
        if (score.system, score.metric) in found:
            raise DataError(
                f"{score.system} has two scores in {score.metric}",
                where="ablation",
                remedy="Average the seeds, and draw one dataset at a time.",
            )
        found[score.system, score.metric] = score
    return found


def _places(count: int) -> list[float]:
    """Where the systems of a metric stand beside its tick."""
    return [(index - (count - 1) / 2) * ROOM / count for index in range(count)]


def _bars(
    axes: Axes, scores: Mapping[tuple[str, str], Score], systems: Sequence[str], names: Sequence[str], floor: str
) -> None:
    for system, offset in zip(systems, _places(len(systems)), strict=True):
        shown = [(place, scores[system, name]) for place, name in enumerate(names) if (system, name) in scores]
        signs = look(system)
        axes.bar(
            [place + offset for place, _ in shown],
            [score.value for _, score in shown],
            ROOM / len(systems) * 0.92,
            color=signs.colour,
            hatch=signs.hatch,
            edgecolor=INK if signs.colour == YELLOW else "white",  # of the hatch as well
            linewidth=0,
            label=system,
        )
        for place, score in shown:
            whisker(axes, place + offset, score)
    level = [(place, scores[floor, name].value) for place, name in enumerate(names) if (floor, name) in scores]
    for number, (place, value) in enumerate(level):
        label = f"{floor}: no ECG" if number == 0 else "_"
        axes.plot([place - ROOM / 2, place + ROOM / 2], [value, value], color=INK, linestyle=(0, (3, 1.5)), label=label)
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)


def _differences(
    axes: Axes, differences: Mapping[tuple[str, str], Score], systems: Sequence[str], names: Sequence[str]
) -> None:
    axes.axhline(0, color=GREY, linewidth=0.8)
    for system, offset in zip(systems, _places(len(systems)), strict=True):
        signs = look(system)
        for place, name in enumerate(names):
            score = differences.get((system, name))
            if score is None:
                continue
            whisker(axes, place + offset, score, signs.colour, linewidth=1.2)
            axes.plot(place + offset, score.value, marker=signs.marker, color=signs.colour, markersize=3.5, zorder=5)
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0)

"""The figures, by name: which data file each is drawn from, and by which function.

Data files lie in `reports/figures/data/`, written by `heartllm-eval measure`; figures of scores are drawn from the
tables. A figure whose data are not there is not drawn, and the results page says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm_eval.paper.evidence import Block
from heartllm_eval.paper.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = tuple["Figure", Sequence[Mapping[str, object]]]
DATA = "data"


@dataclass(frozen=True)
class Entry:
    """A figure.

    Attributes:
        name: of its files. title: on the results page.
        data: its file or folder in the data folder; empty where it is drawn from the tables.
        measured_by: the command that writes the data.
        draw: from the place of the data to the figure and the rows of its CSV.
    """

    name: str
    title: str
    data: str
    measured_by: str
    draw: Callable[[Path], Drawn]

    def ready(self, folder: Path) -> bool:
        """Whether its data are there."""
        place = folder / self.data
        return place.is_file() or (place.is_dir() and any(place.iterdir()))


def _module(name: str) -> Any:
    return import_module(f"heartllm_eval.figures.{name}")


def _embeddings(place: Path) -> Drawn:
    module = _module("embeddings")
    panels = module.read_panels(place)
    return module.draw_embeddings(panels), module.rows(panels)


def _framework(place: Path) -> Drawn:
    module = _module("framework")
    anatomy = _module("anatomy").load_anatomy(place)
    return module.draw_framework(anatomy), module.rows(anatomy)


def _ood(place: Path) -> Drawn:
    module = _module("ood")
    measured = module.read_first(place)
    return module.draw_ood(measured), import_module("heartllm_eval.ood").rows([measured])


def _attention(draw: str) -> Callable[[Path], Drawn]:
    def drawn(place: Path) -> Drawn:
        module = _module("attention")
        examples, _ = _module("attention_data").read_examples(place)
        return getattr(module, draw)(examples), module.rows(examples)

    return drawn


def _coverage(place: Path) -> Drawn:
    module, rows = _module("attention"), _module("style").read_csv(place)
    return module.draw_coverage(rows), module.coverage_rows(rows)


def _forecast(place: Path) -> Drawn:
    rows = _module("forecast_data").read(place)
    return _module("forecast").draw_forecast(rows), rows


def _codec(name: str) -> Callable[[Path], Drawn]:
    def drawn(place: Path) -> Drawn:
        figure, rows = _module("codec").drawn(name, place)
        return figure, rows

    return drawn


def _curve(draw: str) -> Callable[[Path], Drawn]:
    def drawn(place: Path) -> Drawn:
        module, scores = _module("curves"), _module("scores").read_scores(place)
        return getattr(module, draw)(scores, synthetic=place.stem.endswith("_synthetic")), module.rows(scores)

    return drawn


_LOOK, _NOISE = "heartllm-eval measure attention", "heartllm-eval measure denoising"
_CODEC, _CURVE = "heartllm-eval measure codec", "heartllm-eval measure curve"

FIGURES: tuple[Entry, ...] = (
    Entry(
        "figure1_embeddings",
        "Figure 1. ECG and text in the language model's space",
        "embeddings",
        "heartllm-eval measure embeddings",
        _embeddings,
    ),
    Entry(
        "figure2_framework",
        "Figure 2. The framework, drawn from the model",
        "framework.json",
        "heartllm-eval measure framework",
        _framework,
    ),
    Entry(
        "figure4ab_attention",
        "Figure 4 a-b. Attention and occlusion over the ECG",
        "attention/examples.json",
        _LOOK,
        _attention("draw_attention"),
    ),
    Entry(
        "figure4ab_lead_groups",
        "Figure 4 a-b, by lead group",
        "attention/examples.json",
        _LOOK,
        _attention("draw_lead_groups"),
    ),
    Entry("attention_coverage", "How much of a known finding they cover", "attention/summary.csv", _LOOK, _coverage),
    Entry(
        "figure4c_reconstruction",
        "Figure 4 c. Reconstruction from codes, with and without noise",
        "codec/reconstruction.csv",
        _NOISE,
        _codec("reconstruction"),
    ),
    Entry("denoising", "SNR in against SNR out", "codec/denoising.csv", _NOISE, _codec("denoising")),
    Entry(
        "rate_distortion",
        "Rate against distortion and a probe's AUC",
        "codec/rate_distortion",
        _CODEC,
        _codec("rate_distortion"),
    ),
    Entry("code_usage", "How often each code is used", "codec/code_usage", _CODEC, _codec("code_usage")),
    Entry("readings", "What is read off the copies", "codec/readings", _CODEC, _codec("readings")),
    Entry(
        "readings_noise",
        "What is read off copies of noisy ECGs",
        "codec/readings_noise.csv",
        _NOISE,
        _codec("readings_noise"),
    ),
    Entry(
        "forecast",
        "Forecasts of rhythm, intervals and codes, against repeating the last beat",
        "forecast",
        "heartllm-eval measure forecast",
        _forecast,
    ),
    Entry("ood", "Out of distribution: noise, gain, rates, leads", "ood", "heartllm-eval measure shift", _ood),
    Entry("learning", "Learning curves", "learning.csv", _CURVE, _curve("draw_learning")),
    Entry(
        "learning_synthetic",
        "Learning curves, synthetic",
        "learning_synthetic.csv",
        _CURVE,
        _curve("draw_learning"),
    ),
    Entry("scaling_synthetic", "Scaling, synthetic", "scaling_synthetic.csv", _CURVE, _curve("draw_scaling")),
    Entry("scaling", "Scaling with the size of the language model", "scaling.csv", _CURVE, _curve("draw_scaling")),
)


@dataclass(frozen=True)
class FromTables:
    """A figure that is drawn from the blocks of tables."""

    name: str
    title: str
    suites: tuple[str, str]

    def blocks(self, plan: Plan, made: Mapping[str, Sequence[Block]]) -> list[Block]:
        """The blocks that are drawn: those that hold the full model and an ablation."""
        named = [(block, {group.name for group in block.groups}) for part in made.values() for block in part]
        return [
            block
            for block, names in named
            if block.suite in self.suites and plan.main in names and names & set(ABLATIONS)
        ]

    def ready(self, plan: Plan, made: Mapping[str, Sequence[Block]]) -> bool:
        """Whether there is something to draw."""
        return bool(self.blocks(plan, made))

    def draw(self, plan: Plan, made: Mapping[str, Sequence[Block]]) -> Drawn:
        """Bars, and the differences of each ablation to the full model."""
        scores, gaps = [], []
        blocks = self.blocks(plan, made)
        for block in blocks:
            for group in block.groups:
                if group.name in (plan.main, *ABLATIONS, "blind"):
                    scores += _scores(block, group.name, group.label, len(group.seeds))
                if group.name in ABLATIONS:
                    gaps += _gaps(block, group.name, group.label, len(group.seeds))
        module = _module("ablation")
        synthetic = any(block.about.get("synthetic") for block in blocks)
        return module.draw_ablation(scores, gaps, synthetic=synthetic), module.rows(scores, gaps)


ABLATIONS = ("without_tab", "without_forecasting", "without_disc")


def _scores(block: Block, name: str, label: str, seeds: int) -> list[Any]:
    kind = _module("scores").Score
    return [
        kind(label, column, cell.value, cell.low, cell.high, seeds)
        for (group, column), cell in block.cells.items()
        if group == name and cell.value is not None
    ]


def _gaps(block: Block, name: str, label: str, seeds: int) -> list[Any]:
    """The row less the main one: the figure shows what taking a part away does."""
    kind = _module("scores").Score
    found = []
    for (group, column), gap in block.gaps.items():
        if group == name and gap.value is not None:
            low, high = (None, None) if gap.low is None or gap.high is None else (-gap.high, -gap.low)
            found.append(kind(label, column, -gap.value, low, high, seeds))
    return found


FROM_TABLES: tuple[FromTables, ...] = (
    FromTables("figure3_ablation_ptbxl", "Figure 3. Ablations on PTB-XL", ("ptbxl_qa", "ptbxl_reports")),
    FromTables(
        "figure3_ablation_synthetic",
        "Figure 3, on synthetic site A",
        ("synthetic_a_qa", "synthetic_a_reports"),
    ),
)


def links(name: str) -> str:
    """Markdown links to a figure's files."""
    return f"[SVG](figures/{name}.svg), [PNG](figures/{name}.png), [CSV](figures/{name}.csv)"


def drawable() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw_all(plan: Plan, made: Mapping[str, Sequence[Block]], data: Path, out: Path) -> list[str]:
    """Draws every figure that has its numbers into `out` -> the names drawn.

    Raises:
        DataError: for a broken data file.
    """
    from heartllm_eval.figures import style

    names = []
    for entry in FIGURES:
        if entry.ready(data):
            figure, rows = entry.draw(data / entry.data)
            style.save(figure, out, entry.name, rows)
            names.append(entry.name)
    for part in FROM_TABLES:
        if part.ready(plan, made):
            figure, rows = part.draw(plan, made)
            style.save(figure, out, part.name, rows)
            names.append(part.name)
    return names

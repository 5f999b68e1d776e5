"""The plan of the paper (`reports/paper.toml`): which systems are trained on what, asked what, and shown where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from heartllm import config
from heartllm.errors import UsageError

TRAINING_FILE = "training-{regime}.json"  # beside the frozen runs of a row and seed


@dataclass(frozen=True)
class Regime:
    """What a row is trained on, and what it is asked then.

    Attributes:
        name: "joint", "a-to-b".
        train: datasets whose training splits are used.
        suites: that the trained model is asked, by name.
        seeds: at most so many trainings of a row; 0 for as many as the row has.
        text: folder of a trained text model that rows begin as (a path beside the plan), instead of the size's recipe.
    """

    name: str
    train: tuple[str, ...]
    suites: tuple[str, ...]
    seeds: int = 0
    text: str = ""


@dataclass(frozen=True)
class Site:
    """A synthetic hospital that is drawn: which of the two, how many recordings, with which seed."""

    name: Literal["a", "b"]
    recordings: int
    seed: int


@dataclass(frozen=True)
class Hours:
    """Hours of each stage of a training, for the estimate of a dry run; `text` once a regime."""

    frontend: float
    tokens: float
    forecasting: float
    tuning: float
    blind: float
    asking: float
    text: float = 0.0


@dataclass(frozen=True)
class Size:
    """One size of the whole plan.

    Attributes:
        name: "compact", "full".
        about: the language model and the data in words.
        note: what a reader must know of how it was chosen; among the limits on the results page.
        explained: what may lie behind the ranking, and which experiment would tell; by hand, below the findings.
        regimes: by name; a row that names one that a size has not is not trained at this size.
        base: recipe that takes the place of the base of every row's recipe (a path beside the plan); empty: their own.
        changes: folder of `<recipe>.toml` files whose keys come on top of a row's recipe at this size.
        text: recipe of a language model trained on the texts of a regime alone, as which every row then begins (a path
            beside the plan); empty where rows begin from nothing, or as a pretrained model.
        sites: synthetic hospitals to train on. fresh: others, drawn anew, to be asked about.
        device: cpu, cuda.
        hours: of one core, a stage, measured; nothing where the size was never run.
    """

    name: str
    about: str
    regimes: tuple[Regime, ...]
    note: str = ""
    explained: str = ""
    base: str = ""
    changes: str = ""
    text: str = ""
    sites: tuple[Site, ...] = ()
    fresh: tuple[Site, ...] = ()
    device: str = "cpu"
    hours: Hours | None = None

    def regime(self, name: str) -> Regime | None:
        """The regime of this name, if the size has it."""
        return next((part for part in self.regimes if part.name == name), None)


@dataclass(frozen=True)
class Row:
    """A row of tables: one system, trained with one or several seeds.

    Attributes:
        name: of its folder. label: in tables and figures.
        kind: "system" (ours), "rival", "ablation" or "variant" (ours otherwise).
        recipe: a recipe file beside the plan, or a bundled recipe.
        regimes: what it is trained and asked on.
        tables: the tables that it stands in.
        seeds: how many trainings of its language model, from seed 0 on.
        frontend: the row whose front-end and token store it uses; its own where empty.
        pretrained: the row whose forecasting stage it starts from; its own where empty.
        text: its front-end is trained against a text model: the one that rows begin as, or the blind control.
        own_text: its language model has another size than the main row's, and so begins as a text model of its own.
        checkpoint: a trained one (a path beside the plan), asked as it is; `recipe` says how it was made.
        controls: asked beside it.
        about: a sentence for the results page.
    """

    name: str
    label: str
    kind: Literal["system", "rival", "ablation", "variant"]
    recipe: str
    regimes: tuple[str, ...] = ("joint",)
    tables: tuple[str, ...] = ()
    seeds: int = 1
    frontend: str = ""
    pretrained: str = ""
    text: bool = False
    own_text: bool = False
    checkpoint: str = ""
    controls: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: a figure ("bleu.standard/bleu4"), and the slice that it is of."""

    name: str
    metric: str
    slice: str = "all"


@dataclass(frozen=True)
class TablePlan:
    """A table of the paper.

    Attributes:
        name: of its files. title: above it.
        suites: one part each.
        columns: the same in each part.
    """

    name: str
    title: str
    suites: tuple[str, ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Plan:
    """The whole plan; `sizes[0]` is the one whose frozen runs are committed.

    Attributes:
        main: the row that differences are taken of.
        recipe_blind: recipe of the blind control: the main row's.
    """

    main: str
    sizes: tuple[Size, ...]
    rows: tuple[Row, ...]
    tables: tuple[TablePlan, ...] = ()
    path: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        _distinct("row", names)
        _distinct("label", [row.label for row in self.rows])
        _distinct("table", [table.name for table in self.tables])
        _distinct("size", [size.name for size in self.sizes])
        if self.main not in names:
            raise ValueError(f"main is {self.main!r}, which is no row")
        if not self.sizes:
            raise ValueError("there is no size")
        regimes = {regime.name for size in self.sizes for regime in size.regimes}
        for number, row in enumerate(self.rows):
            for what, given, known in (
                ("table", row.tables, {table.name for table in self.tables}),
                ("regime", row.regimes, regimes),
                ("earlier row", [name for name in (row.frontend, row.pretrained) if name], set(names[:number])),
            ):
                unknown = [name for name in given if name not in known]
                if unknown:
                    raise ValueError(f"row {row.name!r} names {unknown[0]!r}, which is no {what}")
            if row.seeds < 1:
                raise ValueError(f"row {row.name!r} has {row.seeds} seeds")

    def row(self, name: str) -> Row:
        """The row of this name.

        Raises:
            UsageError: if there is none.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise UsageError(
            f"no row {name!r}", where=self.path, remedy=f"It has: {', '.join(row.name for row in self.rows)}."
        )

    def size(self, name: str | None = None) -> Size:
        """The size of this name; the first without.

        Raises:
            UsageError: if there is none.
        """
        for size in self.sizes:
            if name in (None, size.name):
                return size
        raise UsageError(
            f"no size {name!r}", where=self.path, remedy=f"It has: {', '.join(size.name for size in self.sizes)}."
        )

    def of_table(self, table: str) -> list[Row]:
        """The rows of a table, the main one first."""
        rows = [row for row in self.rows if table in row.tables]
        return sorted(rows, key=lambda row: row.name != self.main)

    def jobs(self, size: Size) -> Iterator[tuple[Row, Regime, int]]:
        """Every training of a size: row, regime, seed; seed 0 first, and one regime after the other with all its rows,
        so that one table after the other fills early."""
        for seed in range(max(row.seeds for row in self.rows)):
            for regime in size.regimes:
                for row in self.rows:
                    if regime.name in row.regimes and seed < seeds_of(row, regime):
                        yield row, regime, seed

    def seeds(self, row: Row, suite: str) -> int:
        """How many trainings of a row are asked a suite, at the first size."""
        regimes = [self.size().regime(name) for name in row.regimes]
        return max((seeds_of(row, part) for part in regimes if part is not None and suite in part.suites), default=0)


def seeds_of(row: Row, regime: Regime) -> int:
    """How many trainings a row has in a regime."""
    return min(row.seeds, regime.seeds or row.seeds)


def load(path: Path) -> Plan:
    """Reads a plan.

    Raises:
        UsageError: naming what is wrong in it.
    """
    values = config.read_toml(path)
    values["path"] = path
    return config.from_dict(Plan, _plural(values), where=path)


def recipe_path(plan: Plan, row: Row) -> Path | None:
    """The recipe file of a row beside the plan; None for a bundled one.

    Raises:
        UsageError: if there is neither.
    """
    from importlib import resources

    if not row.recipe.endswith(".toml"):
        if resources.files("heartllm").joinpath("recipes", f"{row.recipe}.toml").is_file():
            return None
        raise UsageError(
            f"no bundled recipe {row.recipe!r}",
            where=f"{plan.path}: row {row.name}",
            remedy="Name a bundled one, or a file beside the plan that ends in .toml.",
        )
    path = plan.path.parent / row.recipe
    if not path.is_file():
        raise UsageError(
            f"no recipe {row.recipe}",
            where=f"{plan.path}: row {row.name}",
            remedy=f"Write {path}, or leave the row out.",
        )
    return path


def _plural(values: dict[str, Any]) -> dict[str, Any]:
    """TOML's `[[row]]` reads as one row; the field is `rows`."""
    renamed = {"row": "rows", "size": "sizes", "table": "tables", "regime": "regimes", "column": "columns"}

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {
                renamed.get(key, key)
                if isinstance(value, list) and value and isinstance(value[0], dict)
                else key: walk(value)
                for key, value in part.items()
            }
        return [walk(item) for item in part] if isinstance(part, list) else part

    found: dict[str, Any] = walk(values)
    return found


def _distinct(what: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the {what} {twice!r} comes twice")

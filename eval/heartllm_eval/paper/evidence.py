"""Frozen runs as rows of a table: what may stand beside each other, means over seeds, paired differences."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heartllm.errors import DataError, UsageError
from heartllm_eval import frozen, scoring
from heartllm_eval import statistics as stats
from heartllm_eval.frozen import Frozen
from heartllm_eval.metrics.base import Array, Metric
from heartllm_eval.paper.plan import TRAINING_FILE, Column, Plan, Row
from heartllm_eval.planning import changes
from heartllm_eval.scoring import Options, Scored, slice_masks

CONTROLS = ("majority", "constant", "retrieval", "blind")  # the same for every row; those of the main row shown
SHUFFLED = "shuffled"


@dataclass(frozen=True)
class Group:
    """One line of a table: the statistics of one system, a training a seed.

    Attributes:
        name: "heartllm", "heartllm/shuffled", "majority".
        label: in the table.
        seeds: seed -> its statistics.
    """

    name: str
    label: str
    seeds: Mapping[int, Scored]


@dataclass(frozen=True)
class Cell:
    """A score: the mean over seeds.

    Attributes:
        value, low, high: in per cent; the interval is of patients, for the mean over these trainings.
        values: seed -> score.
        interval: how it was made, see `heartllm_eval.schema.Figure`.
    """

    value: float | None
    low: float | None
    high: float | None
    values: Mapping[int, float]
    n: int
    clusters: int
    interval: str


@dataclass(frozen=True)
class Gap:
    """The main row less another one, on the same questions.

    Attributes:
        value, low, high: in points, with the paired interval by patient. p, p_holm: two-sided.
        agreeing, pairs: of the pairs of trainings, each with each of the other's, how many have the sign of `value`.
    """

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    test: str
    agreeing: int
    pairs: int

    @property
    def significant(self) -> bool:
        """After Holm's correction, with the interval off 0, and with the same sign in every pair of trainings."""
        clear = self.p_holm is not None and self.p_holm < 0.05 and self.agreeing == self.pairs
        return clear and self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Block:
    """One suite's part of a table.

    Attributes:
        suite: its name. about: what the runs say of it.
        groups: the main row first; controls last.
        cells: (group, column) -> score. gaps: (group, column) -> the main row less it.
        missing: labels of rows that were not run. seeds_missing: label -> "2 of 3".
    """

    suite: str
    about: Mapping[str, Any]
    groups: tuple[Group, ...]
    cells: Mapping[tuple[str, str], Cell]
    gaps: Mapping[tuple[str, str], Gap]
    missing: tuple[str, ...] = ()
    signatures: Mapping[str, str] = field(default_factory=dict)
    resamples: int = 0


class Runs:
    """The frozen runs below a folder: ROOT/<row>/seed-<k>/<suite>."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def seeds(self, row: str, suite: str) -> list[int]:
        """The seeds of which there is a frozen run."""
        found = []
        for path in (self.root / row).glob(f"seed-*/{suite}/{frozen.MANIFEST_FILE}"):
            number = path.parent.parent.name.removeprefix("seed-")
            if number.isdigit():
                found.append(int(number))
        return sorted(found)

    def read(self, row: str, seed: int, suite: str, only: Collection[str] | None = None) -> Frozen:
        """One frozen run, with these metrics only.

        Raises:
            UsageError: if there is none. DataError: if it was changed.
        """
        return frozen.read(self.root / row / f"seed-{seed}" / suite, only=only)

    def training(self, row: str, seed: int, regime: str) -> dict[str, Any]:
        """What the driver wrote of a training; empty where it is not known."""
        path = self.root / row / f"seed-{seed}" / TRAINING_FILE.format(regime=regime)
        if not path.is_file():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read ({error})", where=path, remedy="Train the row again.") from None


def collect(
    runs: Runs, rows: Sequence[Row], suite: str, metrics: Collection[str] | None = None, *, missing: bool = True
) -> tuple[list[Group], list[Frozen]]:
    """The groups of a suite, the main row (the first) first, then its controls; and the runs behind them.

    Args:
        metrics: that are needed.
        missing: leave out rows that were not run; otherwise refuse them.

    Raises:
        UsageError: for a missing run, and for runs that may not stand in one table.
    """
    groups: list[Group] = []
    controls: dict[str, dict[int, Scored]] = {}
    held: list[Frozen] = []
    for row in rows:
        seeds = [seed for seed in runs.seeds(row.name, suite) if seed < row.seeds]
        if not seeds:
            if missing:
                continue
            raise UsageError(
                f"{row.label} has no frozen run of {suite}",
                where=runs.root / row.name,
                remedy=f"Run it: heartllm-eval paper PLAN --only {row.name}.",
            )
        read = {seed: runs.read(row.name, seed, suite, metrics) for seed in seeds}
        held += read.values()
        groups.append(Group(row.name, row.label, {seed: part.system("model") for seed, part in read.items()}))
        for seed, part in read.items():
            for scored in part.systems[1:]:
                if scored.system == "gold":  # a check of the metrics, not a system
                    continue
                own = scored.system == SHUFFLED
                if own or row is rows[0]:
                    controls.setdefault(f"{row.name}/{SHUFFLED}" if own else scored.system, {})[seed] = scored
    check_alike(held, runs.root)
    labels = {f"{row.name}/{SHUFFLED}": f"{row.label}, other patient's ECG" for row in rows}
    order = [*CONTROLS, *labels]
    for name in sorted(controls, key=lambda name: order.index(name) if name in order else len(order)):
        groups.append(Group(name, labels.get(name, name), _distinct_seeds(controls[name])))
    return groups, held


def _distinct_seeds(found: Mapping[int, Scored]) -> dict[int, Scored]:
    """A control that is no training (majority) says the same beside every seed; it then counts once."""
    first = next(iter(found.values()))
    same = all(
        np.array_equal(first.statistics[name], scored.statistics[name])
        for scored in found.values()
        for name in first.statistics
    )
    return {next(iter(found)): first} if same else dict(found)


def _perturbed(run: Frozen) -> list[str]:
    return list((run.record.get("config") or {}).get("perturb") or [])


def check_alike(runs: Sequence[Frozen], where: Path) -> None:
    """Refuses runs of other suites, samples or ways of scoring side by side.

    Raises:
        UsageError: with the difference and the remedy.
    """
    for other in runs[1:]:
        first = runs[0]
        names = f"{_short(first.folder)} and {_short(other.folder)}"
        again = "Run the row again with this program, and freeze it: heartllm-eval paper PLAN --only ROW."
        for key in ("version", "kind", "dataset", "split", "limit"):
            if first.about.get(key) != other.about.get(key):
                ours, theirs = first.about.get(key), other.about.get(key)
                raise UsageError(
                    f"{names} are runs of different suites: {key} {ours!r} and {theirs!r}", where=where, remedy=again
                )
        if _perturbed(first) != _perturbed(other):
            raise UsageError(
                f"{names} were shown ECGs that were shifted otherwise (--perturb)", where=where, remedy=again
            )
        if first.about.get("ids_hash") != other.about.get("ids_hash") or len(first.requests) != len(other.requests):
            raise UsageError(f"{names} were asked different samples", where=where, remedy=again)
        if first.about.get("requests_hash") != other.about.get("requests_hash"):
            raise UsageError(
                f"{names} were asked the same samples, told apart or worded otherwise", where=where, remedy=again
            )
        differing = [line for line in changes(first.signatures, other.signatures) if "None" not in line.split(" -> ")]
        if first.signatures.keys() != other.signatures.keys() or differing:
            shown = "; ".join(changes(first.signatures, other.signatures)[:2])
            raise UsageError(
                f"{names} were scored in different ways ({shown})",
                where=where,
                remedy="Score both runs once more (heartllm-eval score RUN), and freeze them again.",
            )


def _short(folder: Path) -> str:
    return "/".join(folder.parts[-3:])


def measure(
    plan: Plan,
    runs: Runs,
    rows: Sequence[Row],
    suite: str,
    columns: Sequence[Column],
    *,
    options: Options | None = None,
    complete: bool = False,
) -> Block | None:
    """Scores, intervals and paired differences of one suite; None where no row was run on it.

    All systems and slices share the same draws of patients. Holm's correction is not applied yet (`correct`).

    Args:
        complete: refuse rows that were not run instead of leaving them out.

    Raises:
        UsageError: as `collect`, and for a metric that the runs do not have.
    """
    options = options or Options()
    families = {column.metric.partition("/")[0] for column in columns}
    groups, held = collect(runs, rows, suite, families, missing=not complete)
    if not groups:
        return None
    first = held[0]
    by_figure = {
        metric.full_name(figure): (metric, i) for metric in first.metrics for i, figure in enumerate(metric.figures)
    }
    masks = slice_masks(
        first.requests, [*dict.fromkeys(c.slice.partition("=")[0] for c in columns if c.slice != "all")]
    )
    clusters = stats.number_clusters(request.cluster for request in first.requests)
    resampling = stats.Draws(len(np.unique(clusters)), resamples=options.resamples, seed=options.seed)
    main = groups[0] if groups[0].name == plan.main else None
    cells: dict[tuple[str, str], Cell] = {}
    gaps: dict[tuple[str, str], Gap] = {}
    flat = [
        Scored(f"{group.name}#{seed}", scored.statistics) for group in groups for seed, scored in group.seeds.items()
    ]
    for name in dict.fromkeys(_figure(column.metric, by_figure, first) for column in columns):
        chosen = [column for column in columns if _figure(column.metric, by_figure, first) == name]
        metric, index = by_figure[name]
        wanted = {column.slice: masks[column.slice] for column in chosen if column.slice in masks}
        draws, values = scoring.resample(metric, flat, wanted, clusters, resampling)
        for column in chosen:
            if column.slice not in wanted:
                continue
            scorer = _Scorer(metric, index, wanted[column.slice], clusters, column.slice, draws, values, options)
            for group in groups:
                cells[group.name, column.name] = scorer.cell(group)
                if main is not None and group is not main:
                    gaps[group.name, column.name] = scorer.gap(main, group)
    absent = tuple(row.label for row in rows if row.name not in {group.name for group in groups})
    signatures = {name: sign for name, sign in first.signatures.items() if name.replace("-nowordnet", "") in families}
    return Block(suite, first.about, tuple(groups), cells, gaps, absent, signatures, options.resamples)


def _figure(name: str, known: Mapping[str, Any], run: Frozen) -> str:
    family, dot, rest = name.partition(".")
    found = next((other for other in (name, f"{family}-nowordnet{dot}{rest}") if other in known), None)
    if found is None:
        raise UsageError(
            f"the runs were not scored with {name!r}",
            where=run.folder,
            remedy=f"They have: {', '.join(run.signatures)}. Score the run with it, and freeze it again.",
        )
    return found


@dataclass(frozen=True)
class _Scorer:
    """One figure of one slice: means over seeds, and their differences."""

    metric: Metric
    column: int
    mask: Any
    clusters: stats.Rows
    label: str
    draws: Mapping[tuple[str, str], Array]
    values: Mapping[tuple[str, str], Array]
    options: Options

    def cell(self, group: Group) -> Cell:
        rows = self.clusters[self.mask]
        values = {seed: self._value(group, seed) for seed in group.seeds}
        value = float(np.mean(list(values.values())))
        sides = [scored.statistics[self.metric.name][self.mask] for scored in group.seeds.values()]
        n, clusters = scoring.extent(self.metric, self.column, sides[0], rows)
        found = stats.interval(value, self._drawn(group), clusters=clusters, confidence=self.options.confidence)
        method = "none" if found.low is None else "bootstrap"
        share = self.metric.share(self.column)
        if share is not None:
            exact = [
                scoring.exact(found, method, side[:, list(share)], rows, self.options.confidence) for side in sides
            ]
            if any(name != method for _, name in exact):  # of several trainings: as wide as any one's
                method = exact[0][1] if len({name for _, name in exact}) == 1 else "mixed"
                lows, highs = [part.low for part, _ in exact], [part.high for part, _ in exact]
                found = stats.Interval(value, _extreme(lows, min), _extreme(highs, max))
        kept = {seed: number for seed, number in values.items() if not math.isnan(number)}
        return Cell(_number(value), found.low, found.high, kept, n, clusters, method)

    def gap(self, main: Group, other: Group) -> Gap:
        ours = [self._value(main, seed) for seed in main.seeds]
        theirs = [self._value(other, seed) for seed in other.seeds]
        value = float(np.mean(ours) - np.mean(theirs))
        rows = self.clusters[self.mask]
        sides = [
            np.stack([scored.statistics[self.metric.name][self.mask] for scored in group.seeds.values()])
            for group in (main, other)
        ]
        _, clusters = scoring.extent(self.metric, self.column, sides[0][0], rows)
        delta = self._drawn(main) - self._drawn(other)
        between = stats.interval(value, delta, clusters=clusters, confidence=self.options.confidence)
        if between.low == between.high:  # every patient differs alike: how far others could is unknown
            between = stats.Interval(value, None, None)
        test = "bootstrap"
        p = stats.paired_bootstrap_p(value, delta) if clusters >= stats.MIN_CLUSTERS else math.nan
        if self.metric.binary:
            right, wrong = (side[..., 0].mean(axis=0) for side in sides)
            if math.isnan(p):
                test, p = "sign", stats.sign_test(right - wrong, rows)
            if len(ours) == len(theirs) == 1:
                test = f"mcnemar+{test}"
                p = max(p, stats.mcnemar((right > 0).tolist(), (wrong > 0).tolist())[0])
        signs = [np.sign(a - b) == np.sign(value) for a in ours for b in theirs]
        return Gap(_number(value), between.low, between.high, _number(p), None, test, int(sum(signs)), len(signs))

    def _value(self, group: Group, seed: int) -> float:
        return float(self.values[f"{group.name}#{seed}", self.label][self.column])

    def _drawn(self, group: Group) -> Array:
        found: Array = np.mean(
            [self.draws[f"{group.name}#{seed}", self.label][:, self.column] for seed in group.seeds], axis=0
        )
        return found


def correct(blocks: Sequence[Block]) -> list[Block]:
    """Adds Holm's correction over all differences of a table to trained rows and controls."""
    from dataclasses import replace

    keys = [(number, key) for number, block in enumerate(blocks) for key in block.gaps]
    given = [blocks[number].gaps[key].p for number, key in keys]
    adjusted = dict(zip(keys, stats.holm([math.nan if p is None else p for p in given]), strict=True))
    return [
        replace(
            block,
            gaps={
                key: replace(gap, p_holm=_number(adjusted.get((number, key), math.nan)))
                for key, gap in block.gaps.items()
            },
        )
        for number, block in enumerate(blocks)
    ]


def _extreme(values: Sequence[float | None], choose: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(choose(known)) if len(known) == len(values) else None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

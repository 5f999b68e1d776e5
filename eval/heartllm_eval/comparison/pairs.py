"""The comparison itself: checks, differences on the same draws, Holm over the whole table, and the record of it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heartllm.errors import UsageError
from heartllm_eval import provenance
from heartllm_eval.comparison import checks
from heartllm_eval.comparison.flips import Flip, find_flips
from heartllm_eval.comparison.seeds import Group, check_seeds, group_scores
from heartllm_eval.comparison.sides import Side
from heartllm_eval.metrics.base import Metric
from heartllm_eval.schema import SCHEMA_VERSION, Difference, Figure, Request
from heartllm_eval.scoring import Options, Scored, correct_for_many, evaluate, load_metrics, score_system


@dataclass(frozen=True)
class Wanted:
    """What to compare on.

    Attributes:
        metrics: names; those that all sides were scored with where empty. The first is the primary one.
        slices: names; None for those of the suite, empty for none.
        every_metric: differences by slice of every metric, not of the primary one only.
        all_pairs: every side with every later one, not only the first with each of the others.
        intersect: compare on the samples that all sides hold, where they hold different ones.
    """

    metrics: tuple[str, ...] = ()
    slices: tuple[str, ...] | None = None
    every_metric: bool = False
    all_pairs: bool = False
    intersect: bool = False
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Comparison:
    """The record of a comparison (compare.json). `flips` are written to flips.jsonl instead."""

    command: tuple[str, ...]
    at: str
    sides: Mapping[str, Any]
    tasks: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    source: Mapping[str, Any]
    signatures: Mapping[str, str]
    figures: tuple[Figure, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Prepared:
    """One task, checked and scored: ready for figures, differences and flips."""

    shared: checks.Shared
    metrics: list[Metric]
    primary: str
    slices: tuple[str, ...]
    systems: list[Scored]
    about: Mapping[str, Any]


def prepare(
    sides: Sequence[Side], task: str, wanted: Wanted, *, say: Callable[[str], None] = lambda message: None
) -> Prepared | None:
    """Checks that a task can be compared and scores every side; None if no wanted metric is for this kind of task.

    All numbers are computed anew from the answers, by this program.

    Raises:
        UsageError: for other samples, suite versions or signatures, and unknown metrics or slices.
    """
    first = sides[0].tasks[task]
    names = _metrics(sides, task, wanted.metrics)
    if not names:
        return None
    notes = checks.check_suites(sides, task)
    checks.check_signatures(sides, task, names)
    shared = checks.share(sides, task, intersect=wanted.intersect)
    metrics = load_metrics(names)
    say(f"{task}: scoring {len(shared.requests):,} samples of {len(sides)} systems")
    systems = [
        score_system(side.label, shared.requests, said, metrics)
        for side, said in zip(sides, shared.predictions, strict=True)
    ]
    known = {metric.name: name for name, metric in zip(names, metrics, strict=True)}
    recorded = str(first.get("primary", ""))
    primary = next((name for name in known if recorded in (name, known[name])), metrics[0].name)
    primary = metrics[0].name if wanted.metrics else primary
    about = {
        **{name: first.get(name) for name in ("title", "version", "kind", "dataset", "split", "synthetic", "derived")},
        "title": first.get("title") or task,
        "cluster": first.get("cluster", "patient"),
        "requests": len(shared.requests),
        "patients": len({request.cluster or request.id for request in shared.requests}),
        "primary": primary,
        "metrics": [metric.name for metric in metrics],
        "slices": _slices(shared.requests, first, wanted.slices),
        "limit": first.get("limit"),
        "notes": [*notes, *shared.notes, *_rescored(sides, task, known, metrics)],
    }
    return Prepared(shared, metrics, primary, tuple(about["slices"]), systems, about)


def compare(
    sides: Sequence[Side], wanted: Wanted, *, say: Callable[[str], None] = lambda message: None
) -> tuple[Comparison, list[Flip]]:
    """Compares the first side with each of the others (or every pair), on every task that all have.

    Raises:
        UsageError: as `prepare`, and if there is nothing to compare.
    """
    if len(sides) < 2:
        raise UsageError("one system only", where="compare", remedy="Name two or more runs, or RUN:SYSTEM.")
    tasks, notes = checks.common_tasks(sides)
    figures: list[Figure] = []
    differences: list[Difference] = []
    flips: list[Flip] = []
    found: dict[str, Prepared] = {}
    for task in tasks:
        ready = prepare(sides, task, wanted, say=say)
        if ready is None:
            continue
        found[task] = ready
        for start in range(len(sides) - 1 if wanted.all_pairs else 1):
            result = evaluate(
                task,
                ready.shared.requests,
                ready.systems[start:],
                ready.metrics,
                slices=ready.slices,
                compare={metric.name for metric in ready.metrics},
                compare_slices=lambda metric, label, primary=ready.primary: (  # type: ignore[misc]
                    label == "all" or wanted.every_metric or metric == primary
                ),
                options=wanted.options,
            )
            figures += result.figures if start == 0 else []
            differences += [part for part in result.differences if wanted.every_metric or _shown(part, ready)]
            flips += _flips(ready, start)
    return _record(sides, found, wanted, figures, differences, notes), flips


def _shown(part: Difference, ready: Prepared) -> bool:
    """By slice, one figure of the primary metric is enough (the last: ROUGE-L, BLEU-4)."""
    metric = next(metric for metric in ready.metrics if metric.name == ready.primary)
    return part.slice == "all" or part.metric == metric.full_name(metric.figures[-1])


def _flips(ready: Prepared, start: int) -> list[Flip]:
    metric = next(metric for metric in ready.metrics if metric.name == ready.primary)
    found: list[Flip] = []
    for other in range(start + 1, len(ready.systems)):
        pair = ready.systems[start], ready.systems[other]
        found += find_flips(
            ready.shared.task,
            metric,
            ready.shared.requests,
            (pair[0].system, pair[1].system),
            (pair[0].statistics[metric.name], pair[1].statistics[metric.name]),
            (ready.shared.predictions[start], ready.shared.predictions[other]),
        )
    return found


def _metrics(sides: Sequence[Side], task: str, wanted: Sequence[str]) -> list[str]:
    from heartllm_eval.metrics import DEFAULT_METRICS, check_metric, get_metric

    kind = sides[0].tasks[task].get("kind", "qa")
    if wanted:
        for name in wanted:
            check_metric(name, where="--metrics")
        return [name for name in wanted if get_metric(name).kind == kind]
    lists = [list(side.tasks[task].get("metrics") or DEFAULT_METRICS[kind]) for side in sides]
    common = [name for name in lists[0] if all(name in part for part in lists)]
    if not common:
        held = "; ".join(f"{side.label}: {', '.join(part)}" for side, part in zip(sides, lists, strict=True))
        raise UsageError(
            f"the runs were scored with different metrics ({held})", where=task, remedy="Name some with --metrics."
        )
    return common


def _slices(requests: Sequence[Request], about: Mapping[str, Any], wanted: tuple[str, ...] | None) -> list[str]:
    from heartllm_eval.suite import SLICES

    names = list(about.get("slices") or ()) if wanted is None else list(wanted)
    known = {*SLICES, *(name for request in requests for name in request.slices)}
    for name in names:
        if wanted is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known slices: {', '.join(sorted(known))}."
            raise UsageError(f"unknown slice {name!r}", where="--slices", remedy=hint)
    return [name for name in names if len({request.slice(name) for request in requests}) > 1]


def _rescored(sides: Sequence[Side], task: str, known: Mapping[str, str], metrics: Sequence[Metric]) -> list[str]:
    """A note where the runs recorded other signatures than this program computes by."""
    changed = [
        metric.name
        for metric in metrics
        if any(recorded_other(side, known[metric.name], str(metric.signature)) for side in sides)
    ]
    if not changed:
        return []
    return [
        f"{task}: {', '.join(changed)} computed anew; the runs recorded another signature, so their own tables can "
        "show other numbers."
    ]


def recorded_other(side: Side, metric: str, signature: str) -> bool:
    """Whether a run recorded another signature for a metric than the one given."""
    recorded = checks.recorded_signature(side, metric)
    return recorded is not None and recorded != signature


def of_groups(
    groups: Mapping[str, Sequence[Side]], wanted: Wanted, *, say: Callable[[str], None] = lambda message: None
) -> Comparison:
    """The record of runs of several seeds: their scores, and by group the mean and the range.

    Raises:
        UsageError: as `prepare`, for a group of one run, and for one model counted twice.
    """
    check_seeds(groups)
    sides = [side for part in groups.values() for side in part]
    tasks, notes = checks.common_tasks(sides)
    ready = {task: prepare(sides, task, wanted, say=say) for task in tasks}
    found = {task: part for task, part in ready.items() if part is not None}
    figures = [
        figure
        for task, part in found.items()
        for figure in evaluate(
            task, part.shared.requests, part.systems, part.metrics, slices=part.slices, options=wanted.options
        ).figures
    ]
    scores = group_scores(
        figures, {name: [side.label for side in part] for name, part in groups.items()}, wanted.options.confidence
    )
    return _record(sides, found, wanted, figures, [], notes, scores)


def _record(
    sides: Sequence[Side],
    ready: Mapping[str, Prepared],
    wanted: Wanted,
    figures: Sequence[Figure],
    differences: Sequence[Difference],
    notes: Sequence[str],
    groups: Sequence[Group] = (),
) -> Comparison:
    if not ready:
        raise UsageError("no metric fits", where="--metrics", remedy="Name metrics of the tasks' kind (qa or report).")
    corrected = correct_for_many(differences)
    tests = sum(part.p is not None for part in corrected)
    return Comparison(
        command=tuple(sys.argv),
        at=provenance.now(),
        sides={side.label: side.about for side in sides},
        tasks={task: part.about for task, part in ready.items()},
        settings={**wanted.options.describe(), "holm_tests": tests, "intersect": wanted.intersect},
        versions=provenance.versions(),
        source=provenance.source(),
        signatures={metric.name: str(metric.signature) for part in ready.values() for metric in part.metrics},
        figures=tuple(figures),
        differences=tuple(corrected),
        notes=tuple(notes),
        groups=tuple(groups),
    )

"""What must be the same before two systems may be compared, and what is said where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heartllm.errors import UsageError
from heartllm_eval.comparison.sides import Side
from heartllm_eval.models.predictions import listed
from heartllm_eval.planning import changes
from heartllm_eval.schema import Prediction, Request

# What an answer is scored and paired by. Two samples of one id that differ in it are not the same sample.
CONTENT = ("kind", "question", "references", "options", "cluster")
SPOKEN = ("title", "tags")  # of a suite; they decide nothing
ASKED = ("version", "kind", "dataset", "split")


@dataclass(frozen=True)
class Shared:
    """What all sides hold of a task: the requests in the first side's order, and each side's predictions of them."""

    task: str
    requests: list[Request]
    predictions: list[dict[str, Prediction]]
    notes: tuple[str, ...] = ()


def common_tasks(sides: Sequence[Side]) -> tuple[list[str], list[str]]:
    """The tasks that every side has, and a note for each that some have not.

    Raises:
        UsageError: if there is none.
    """
    names = list(dict.fromkeys(task for side in sides for task in side.tasks))
    common = [task for task in names if all(task in side.tasks for side in sides)]
    if not common:
        held = "; ".join(f"{side.label}: {', '.join(side.tasks)}" for side in sides)
        raise UsageError(f"they have no task in common ({held})", where="compare", remedy="Run the same suite on each.")
    notes = []
    for task in names:
        lacking = [side.label for side in sides if task not in side.tasks]
        if lacking:
            notes.append(f"{task} is left out: {', '.join(lacking)} did not run it.")
    return common, notes


def check_suites(sides: Sequence[Side], task: str) -> list[str]:
    """Refuses other versions of a suite; gives a note where its definition differs at the same version.

    Raises:
        UsageError: with the difference shown.
    """
    first, notes = sides[0], []
    for side in sides[1:]:
        ours, theirs = first.tasks[task], side.tasks[task]
        shifts = [", ".join(part.get("perturb") or ()) or "as they are" for part in (ours, theirs)]
        if shifts[0] != shifts[1]:
            notes.append(
                f"{task}: the ECGs were shown differently: {shifts[0]} to {first.label}, {shifts[1]} to {side.label}."
            )
        differing = [
            f"{name} {ours.get(name)!r} in {first.label}, {theirs.get(name)!r} in {side.label}"
            for name in ASKED
            if ours.get(name) != theirs.get(name)
            and not (name != "kind" and None in (ours.get(name), theirs.get(name)))
        ]
        if differing:
            raise UsageError(
                f"the suites differ: {'; '.join(differing)}",
                where=task,
                remedy="Run both with the same version of the suite.",
            )
        before, after = (dict(part.suites.get(task) or {}) for part in (side, first))
        found = [
            line
            for line in (changes(before, after) if before.keys() == after.keys() else [])
            if line.partition(":")[0].partition(".")[0] not in SPOKEN
        ]
        if found:
            more = f"; {len(found) - 5} more" if len(found) > 5 else ""
            notes.append(
                f"{task}: the suite has the same version but another definition in {side.label} -> {first.label} "
                f"({'; '.join(found[:5])}{more})."
            )
    return notes


def check_signatures(sides: Sequence[Side], task: str, metrics: Sequence[str]) -> None:
    """Refuses metrics that the runs computed in different ways.

    Raises:
        UsageError: with the parts of the signatures that differ.
    """
    first = sides[0]
    for side in sides[1:]:
        for name in metrics:
            ours, theirs = recorded_signature(first, name), recorded_signature(side, name)
            if ours and theirs and ours != theirs:
                raise UsageError(
                    f"{name} was computed in different ways: {_parts(ours, theirs)} in {first.label}, "
                    f"{_parts(theirs, ours)} in {side.label}",
                    where=task,
                    remedy=f"Score both once more: heartllm-eval score {first.path}; heartllm-eval score {side.path}.",
                )


def recorded_signature(side: Side, metric: str) -> str | None:
    """The signature that a run recorded for a metric; METEOR without WordNet records another name."""
    family, dot, variant = metric.partition(".")
    return side.signatures.get(metric) or side.signatures.get(f"{family}-nowordnet{dot}{variant}")


def _parts(signature: str, other: str) -> str:
    known = set(other.split("|"))
    return "|".join(part for part in signature.split("|") if part not in known) or "nothing more"


def share(sides: Sequence[Side], task: str, *, intersect: bool) -> Shared:
    """The samples of a task that all sides hold.

    Args:
        intersect: compare on what all hold, where they hold different samples; otherwise that is refused.

    Raises:
        UsageError: for other samples (how many, and the first ten ids), and for ids that are not the same question.
    """
    by_id = [{request.id: request for request in side.requests[task]} for side in sides]
    first, notes = sides[0], []
    for side, theirs in zip(sides[1:], by_id[1:], strict=True):
        only = [key for key in by_id[0] if key not in theirs], [key for key in theirs if key not in by_id[0]]
        if any(only) and not intersect:
            held = " and ".join(
                f"{len(ids):,} only in {label} (first: {listed(ids)})"
                for ids, label in zip(only, (first.label, side.label), strict=True)
                if ids
            )
            both = len(by_id[0]) - len(only[0])
            raise UsageError(
                f"different samples: {held}{_limits(first, side, task)}",
                where=task,
                remedy=f"Give --intersect to compare on the {both:,} that both hold."
                if both
                else "Run the same suite, --limit and --seed.",
            )
        check_content(task, first, side, by_id[0], theirs)
    said = [side.predictions[task] for side in sides]
    for side, asked, answered in zip(sides, by_id, said, strict=True):
        lacking = [key for key in asked if key not in answered]
        if lacking and not intersect:
            raise UsageError(
                f"{side.label} has no answer yet to {len(lacking):,} of {len(asked):,} samples "
                f"(first: {listed(lacking)})",
                where=task,
                remedy="Finish the run with the same command, or give --intersect to leave them out.",
            )
    kept = [
        request
        for key, request in by_id[0].items()
        if all(key in asked and key in answered for asked, answered in zip(by_id, said, strict=True))
    ]
    if not kept:
        raise UsageError("no sample is answered by all", where=task, remedy="Run the same suite on each.")
    counts = {side.label: len(asked) for side, asked in zip(sides, by_id, strict=True)}
    if any(count != len(kept) for count in counts.values()):
        of = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        notes.append(f"--intersect: only the {len(kept):,} samples that all have answered (of: {of}).")
    chosen = [{request.id: answered[request.id] for request in kept} for answered in said]
    return Shared(task, kept, chosen, tuple(notes))


def _limits(ours: Side, theirs: Side, task: str) -> str:
    limits = [side.tasks[task].get("limit") for side in (ours, theirs)]
    return "" if limits[0] == limits[1] else f"; --limit {limits[0] or 'none'} and {limits[1] or 'none'}"


def check_content(task: str, ours: Side, theirs: Side, left: dict[str, Request], right: dict[str, Request]) -> None:
    """Refuses samples of one id that are not the same question.

    Raises:
        UsageError: with how many there are, and the first.
    """
    differing = {
        key: name
        for key, request in left.items()
        if key in right
        for name in CONTENT
        if getattr(request, name) != getattr(right[key], name)
    }
    if differing:
        fields = ", ".join(sorted(set(differing.values())))
        raise UsageError(
            f"{len(differing):,} samples have the same id but another {fields} in {ours.label} and {theirs.label} "
            f"(first: {listed(list(differing))})",
            where=task,
            remedy="Run both on the same data.",
        )

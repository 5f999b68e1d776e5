"""From the command line's runs to the tasks of a page: which systems answered them, and what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heartllm.errors import DataError, UsageError
from heartllm_eval.comparison.checks import check_content, check_suites
from heartllm_eval.comparison.sides import Reader, Side, Spec, parse_spec, with_labels
from heartllm_eval.records import NO_RUN, read_record
from heartllm_eval.schema import Request, RunRecord


@dataclass(frozen=True)
class Task:
    """One suite, as all the runs that asked it.

    Attributes:
        about: what the first run's record says of it.
        requests: of all runs, each once, in the first run's order.
        sides: the systems that were asked, the runs in the order of the command line.
        notes: where the runs differ in what they asked.
    """

    name: str
    about: Mapping[str, Any]
    requests: tuple[Request, ...]
    sides: tuple[Side, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gathered:
    """Everything that a page is made of.

    Attributes:
        records: label -> record, in the order of the command line.
        folders: label -> run folder.
        first: label -> the run's first system, which runs are compared by.
    """

    records: Mapping[str, RunRecord]
    folders: Mapping[str, Path]
    first: Mapping[str, Side]
    tasks: tuple[Task, ...]


def gather(texts: Sequence[str], tasks: Sequence[str] = ()) -> Gathered:
    """Reads runs, finished or not.

    Args:
        texts: RUN or RUN:SYSTEM, each with LABEL= before it if wanted.
        tasks: only these suites; all where empty.

    Raises:
        UsageError: for a folder that is no run, a run named twice, and runs that ask other things under one name.
        DataError: for broken files, and for runs in which nothing was answered.
    """
    specs = [parse_spec(text) for text in texts]
    if not specs:
        raise UsageError("nothing to show", where="view", remedy=NO_RUN)
    reader, found, owners = Reader(tasks, scores=True), [], []
    records: dict[Path, RunRecord] = {}
    for spec in specs:
        if spec.path.is_file():
            remedy = "Score it into a folder first: heartllm-eval score FILE -o FOLDER."
            raise UsageError("this is a file", where=spec.path, remedy=remedy)
        records[spec.path] = read_record(spec.path)
        for part in _systems(spec, reader):
            found.append(reader.read(part))
            owners.append(part)
    sides = with_labels(found, owners)
    names = _run_names(sides, specs)
    return Gathered(
        records={name: records[path] for path, name in names.items()},
        folders={name: path for path, name in names.items()},
        first={name: next(side for side in sides if side.path == path) for path, name in names.items()},
        tasks=tuple(_task(name, sides) for name in dict.fromkeys(name for side in sides for name in side.tasks)),
    )


def _systems(spec: Spec, reader: Reader) -> list[Spec]:
    """One specification for each system that is wanted of a run."""
    if spec.system is not None:
        return [spec]
    known = reader.systems(spec.path)
    if not known:
        raise DataError("nothing was answered yet", where=spec.path, remedy="Go on with the run: the same command.")
    if spec.label is None or len(known) == 1:
        return [replace(spec, text=f"{spec.text}:{name}", system=name) for name in known]
    return [
        replace(spec, text=f"{spec.text}:{name}", system=name, label=f"{spec.label}:{name}" if number else spec.label)
        for number, name in enumerate(known)
    ]


def _run_names(sides: Sequence[Side], specs: Sequence[Spec]) -> dict[Path, str]:
    """Folder -> name: the label given, or as much of its path as tells it from the others."""
    given = {spec.path: spec.label for spec in specs if spec.label}
    paths = list(dict.fromkeys(side.path for side in sides))
    depth, names = 1, [path.resolve().name for path in paths]
    while len(set(names)) < len(paths) and depth < 12:
        depth += 1
        names = ["/".join(path.resolve().parts[-depth:]) for path in paths]
    return {path: given.get(path) or name for path, name in zip(paths, names, strict=True)}


def _task(name: str, sides: Sequence[Side]) -> Task:
    asked = [side for side in sides if name in side.tasks]
    union: dict[str, Request] = {request.id: request for request in asked[0].requests[name]}
    notes: list[str] = []
    for folder in dict.fromkeys(side.path for side in asked[1:]):
        other = next(side for side in asked if side.path == folder)
        if other.path == asked[0].path:
            continue
        notes += check_suites([asked[0], other], name)
        theirs = {request.id: request for request in other.requests[name]}
        check_content(name, asked[0], other, union, theirs)
        union = {**theirs, **union} if len(theirs) > len(union) else {**union, **theirs}
        if len(union) > len(theirs) or len(union) > len(asked[0].requests[name]):
            notes.append(f"{name}: the runs were not asked the same samples; a dash stands where one was not asked.")
    return Task(name, asked[0].tasks[name], tuple(union.values()), tuple(asked), tuple(dict.fromkeys(notes)))

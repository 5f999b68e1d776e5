"""What is compared: a system of a run folder, or a file of predictions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from heartllm.errors import DataError, UsageError
from heartllm_eval.planning import MODEL, REQUESTS_FILE
from heartllm_eval.records import NO_RUN, read_json
from heartllm_eval.samples import answered
from heartllm_eval.schema import Prediction, Request, request_from_json

_LABEL = re.compile(r"([\w .+-]{1,40})=(.+)")


@dataclass(frozen=True)
class Spec:
    """One argument of `compare`: [LABEL=]RUN[:SYSTEM] or [LABEL=]FILE."""

    text: str
    path: Path
    system: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Side:
    """One system's answers.

    Attributes:
        label: its name in the tables.
        path, system: where it comes from.
        tasks: task -> what run.json says of it.
        suites: task -> the suite's definition, as the run's configuration holds it.
        signatures: metric -> signature, as the run recorded it; empty where it was not scored.
        requests, predictions: task -> what was asked, and id -> what was said. An answer can be missing.
        about: what the comparison's record keeps of it.
        scores: task -> id -> the sample's figures as the run wrote them; only where the reader was asked for them.
    """

    label: str
    path: Path
    system: str
    tasks: Mapping[str, Mapping[str, Any]]
    requests: Mapping[str, Sequence[Request]]
    predictions: Mapping[str, Mapping[str, Prediction]]
    suites: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)


def parse_spec(text: str) -> Spec:
    """Reads "runs/a", "runs/a:blind", "ours=runs/a:model" or "answers.jsonl".

    Raises:
        UsageError: if no such folder or file exists.
    """
    label, place = None, text
    found = _LABEL.fullmatch(text)
    if found and not Path(text).exists():
        label, place = found.group(1).strip(), found.group(2)
    if Path(place).exists():
        return Spec(text, Path(place), None, label)
    folder, colon, system = place.rpartition(":")
    if colon and system and Path(folder).is_dir():
        return Spec(text, Path(folder), system, label)
    raise UsageError("no such folder or file", where=folder or place, remedy=NO_RUN)


class Reader:
    """Reads sides; a folder's requests are read once, however many of its systems are compared.

    Args:
        tasks: only these; all where empty.
        scores: keep the samples' figures, too.
    """

    def __init__(self, tasks: Sequence[str] = (), *, scores: bool = False) -> None:
        self.tasks, self.scores = tuple(tasks), scores
        self._requests: dict[Path, tuple[Request, ...]] = {}

    def systems(self, folder: Path) -> list[str]:
        """The systems of a run, the model first."""
        return list(dict(read_json(folder).get("systems") or {}))

    def read(self, spec: Spec) -> Side:
        """Reads one system of a run folder.

        Raises:
            UsageError: if it is no run folder, or has no such system or task.
            DataError: if its files are broken.
        """
        data = read_json(spec.path)
        system = _system(spec, list(dict(data.get("systems") or {})))
        tasks = {task: about for task, about in data["tasks"].items() if not self.tasks or task in self.tasks}
        if not tasks:
            known = ", ".join(data["tasks"]) or "none"
            raise UsageError(
                f"none of its tasks is wanted (it has {known})", where=spec.path, remedy="Name one with --tasks."
            )
        config = dict(dict(data.get("config") or {}).get("tasks") or {})
        entry = dict(data["systems"][system])
        samples = {task: answered(spec.path / task / system) for task in tasks}
        return Side(
            label=spec.label or system,
            path=spec.path,
            system=system,
            tasks=tasks,
            requests={task: self._read_requests(spec.path, task) for task in tasks},
            predictions={
                task: {key: sample.prediction for key, sample in found.items()} for task, found in samples.items()
            },
            scores={task: {key: sample.scores for key, sample in found.items()} for task, found in samples.items()}
            if self.scores
            else {},
            suites={task: dict(part) for task, part in config.items()},
            signatures={str(name): str(value) for name, value in dict(data.get("signatures") or {}).items()},
            about={
                "run": str(spec.path),
                "system": system,
                **{name: entry.get(name) for name in ("kind", "model_args", "model")},
                **{name: data.get(name) for name in ("status", "finished", "source", "command")},
                "seed": dict(data.get("config") or {}).get("seed"),
            },
        )

    def _read_requests(self, folder: Path, task: str) -> tuple[Request, ...]:
        from heartllm_eval.row_files import rows

        path = folder / task / REQUESTS_FILE
        if path not in self._requests:
            if not path.is_file():
                raise DataError(
                    "the folder holds scores but no answers",
                    where=path,
                    remedy="Compare folders that run or score --output_path has written, or predictions files.",
                )
            try:
                self._requests[path] = tuple(request_from_json(row) for _, row in rows(path))
            except ValueError as error:
                raise DataError(str(error), where=path, remedy="Run again in another folder.") from None
        return self._requests[path]


def _system(spec: Spec, known: Sequence[str]) -> str:
    system = spec.system or (MODEL if MODEL in known else known[0] if len(known) == 1 else "")
    if system not in known:
        near = difflib.get_close_matches(system, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known) or 'none'}."
        raise UsageError(f"the run has no system {system!r}", where=spec.path, remedy=hint)
    return system


def side_of_file(spec: Spec, requests: Sequence[Request], task: str, about: Mapping[str, Any], missing: str) -> Side:
    """A file of predictions, held against references.

    Args:
        spec: the file.
        requests: the references.
        task, about: what they are called and what is known of them.
        missing: "wrong" scores missing ids as wrong, "error" refuses them.

    Raises:
        DataError: as `heartllm_eval.models.predictions.read_predictions`.
    """
    from heartllm_eval.models.predictions import file_hash, read_predictions, report_unmatched
    from heartllm_eval.progress import Progress

    file = read_predictions(spec.path, [request.id for request in requests])
    report_unmatched(file, spec.path, missing, Progress().warn)
    said = {key: Prediction(key, "", error="no prediction") for key in file.missing}
    return Side(
        label=spec.label or spec.path.stem,
        path=spec.path,
        system=MODEL,
        tasks={task: about},
        requests={task: requests},
        predictions={task: {**file.predictions, **said}},
        about={"file": str(spec.path), "sha256": file_hash(spec.path), "kind": "predictions"},
    )


def with_labels(sides: Sequence[Side], specs: Sequence[Spec]) -> list[Side]:
    """Gives every side a short label of its own: its system, its folder, or as much of both as tells them apart.

    Raises:
        UsageError: if one side is named twice, or two are given the same label.
    """
    seen: dict[tuple[Path, str], str] = {}
    for side, spec in zip(sides, specs, strict=True):
        key = (side.path.resolve(), side.system)
        if key in seen:
            raise UsageError(
                f"{spec.text} is named twice", where="compare", remedy="Name different runs, systems or files."
            )
        seen[key] = spec.text
    one_folder = len({side.path.resolve() for side in sides}) == 1
    own_labels = [spec.label for spec in specs]
    if one_folder:
        chosen = [side.system for side in sides]
    else:
        plain = all(side.system == MODEL for side in sides)
        depth, chosen = 1, [""]
        while depth < 12 and len(set(chosen)) < len(sides):
            names = ["/".join(_name(side.path).parts[-depth:]) for side in sides]
            chosen = [name if plain else f"{name}:{side.system}" for name, side in zip(names, sides, strict=True)]
            depth += 1
    final = [own or label for own, label in zip(own_labels, chosen, strict=True)]
    if len(set(final)) < len(final):
        raise UsageError("two sides have the same label", where="compare", remedy="Name them LABEL=RUN:SYSTEM.")
    return [replace(side, label=label) for side, label in zip(sides, final, strict=True)]


def _name(path: Path) -> Path:
    return path.resolve().with_suffix("") if path.is_file() else path.resolve()

"""What a page holds: one JSON object that says what it is about, and compressed chunks that it reads when needed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import UsageError
from heartllm_eval import tables
from heartllm_eval.page import columns, ecgs, shading
from heartllm_eval.page.gather import Gathered, Task
from heartllm_eval.rendering import Table
from heartllm_eval.schema import RunRecord, to_json
from heartllm_eval.scoring import Options

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

_FIRST = re.compile(r" \(first: .*\)")  # what a warning says of the first sample it is about can name a recording


@dataclass(frozen=True)
class Wanted:
    """What goes on a page.

    Attributes:
        title: above it.
        ids: with the identifiers of samples, recordings and patients' hashes, and with run folders.
        ecgs: how many recordings, read from `data_roots`.
        shade: a checkpoint to shade those with, see `heartllm_eval.page.shading`.
        compare: with a comparison of the runs' first systems, where they are several; `options` say how.
    """

    title: str = ""
    ids: bool = False
    ecgs: int = 0
    data_roots: tuple[Path, ...] = ()
    shade: Path | None = None
    compare: bool = True
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Contents:
    """A page before it is HTML: `meta` is shown at once, `chunks` (JSON or plain bytes) are named by their number."""

    meta: dict[str, Any]
    chunks: list[bytes]


def collect(
    found: Gathered,
    wanted: Wanted,
    *,
    warn: Callable[[str], None] = lambda message: None,
    bar: shading.Bar = shading.no_bar,
) -> Contents:
    """Everything that the page shows.

    Raises:
        UsageError, DataError: if recordings are wanted and the data cannot be opened.
    """
    chunks: list[bytes] = []

    def keep(content: bytes) -> int:
        chunks.append(content)
        return len(chunks) - 1

    patients, numbers = columns.Numbering(), columns.Numbering()
    recordings = _recordings(found, wanted, warn)
    about = [_task(task, found, patients, numbers, wanted, keep) for task in found.tasks]
    meta = {
        "title": wanted.title or " and ".join(found.records),
        "runs": [_run(name, record, found.folders[name], wanted) for name, record in found.records.items()],
        "tables": _tables(found, wanted),
        "tasks": about,
        "ecgs": {str(numbers(key)): _ecg(recording, keep) for key, recording in recordings.items()},
        "shades": _shades(found, wanted, recordings, keep, warn, bar) if wanted.shade else None,
        "ids": wanted.ids,
    }
    if wanted.ids:
        meta["patients"] = list(patients.numbers)
    return Contents(meta, chunks)


def _json(value: Any) -> bytes:
    return json.dumps(to_json(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _task(
    task: Task,
    found: Gathered,
    patients: columns.Numbering,
    numbers: columns.Numbering,
    wanted: Wanted,
    keep: Callable[[bytes], int],
) -> dict[str, Any]:
    return {
        "name": task.name,
        "title": str(task.about.get("title") or task.name),
        "kind": str(task.about.get("kind", "qa")),
        "synthetic": bool(task.about.get("synthetic")),
        "derived": bool(task.about.get("derived")),
        "samples": len(task.requests),
        "systems": [side.label for side in task.sides],
        "figure": columns.primary_figure(task),
        "binary": columns.is_binary(task),
        "figures": columns.figure_names(task),
        "notes": list(task.notes),
        "index": keep(_json(columns.index(task, patients, numbers))),
        "size": columns.CHUNK,
        "chunks": [keep(_json(rows)) for rows in columns.chunks(task, ids=wanted.ids)],
    }


def _recordings(found: Gathered, wanted: Wanted, warn: Callable[[str], None]) -> dict[tuple[str, str], Recording]:
    if not wanted.ecgs:
        return {}
    seeds = {found.folders[name]: _seed(record) for name, record in found.records.items()}
    return ecgs.read(found.tasks, seeds, wanted.data_roots, wanted.ecgs, warn=warn)


def _ecg(recording: Recording, keep: Callable[[bytes], int]) -> dict[str, Any]:
    """What it takes to draw it."""
    packed = ecgs.packed(recording)
    return {**{name: packed[name] for name in ("rate", "length", "step")}, "chunk": keep(packed["bytes"])}


def _shades(
    found: Gathered,
    wanted: Wanted,
    recordings: Mapping[tuple[str, str], Recording],
    keep: Callable[[bytes], int],
    warn: Callable[[str], None],
    bar: shading.Bar,
) -> dict[str, dict[int, Any]]:
    """Task -> position of a sample -> [chunk, largest occlusion in nats, largest attention]."""
    assert wanted.shade is not None
    side, record = next(iter(found.first.values())), next(iter(found.records.values()))
    by = dict(dict(record.systems.get(side.system) or {}).get("model") or {}).get("fingerprint")
    shades = shading.shades(found.tasks, recordings, wanted.shade, answered_by=by, warn=warn, bar=bar)
    return {
        task.name: {
            at: [keep(shades[task.name, request.id].packed()), *shades[task.name, request.id].most]
            for at, request in enumerate(task.requests)
            if (task.name, request.id) in shades
        }
        for task in found.tasks
    }


def _seed(record: RunRecord) -> int:
    seed = record.config.get("seed")
    return seed if isinstance(seed, int) else 0


def _run(name: str, record: RunRecord, folder: Path, wanted: Wanted) -> dict[str, Any]:
    """What is known of a run; its folder and command, which tell of the machine and the data, only with identifiers."""
    facts = {
        "status": record.status,
        "started": record.started,
        "finished": record.finished or "–",
        "code": f"{record.source.get('commit') or 'installed package'}"
        f"{' with changes' if record.source.get('dirty') else ''}",
        "heartllm": str(record.versions.get("heartllm", "–")),
    }
    if wanted.ids:
        facts |= {"folder": str(folder), "command": shlex.join(record.command), "error": record.error or "–"}
    notes = [str(note) for note in record.settings.get("notes", [])]
    return {
        "name": name,
        "done": record.status == "done",
        "facts": facts,
        "systems": {system: tables.system_line(entry) for system, entry in record.systems.items()},
        "warnings": notes if wanted.ids else [_FIRST.sub("", note) for note in notes],
        "signatures": list(record.signatures.values()),
    }


def _tables(found: Gathered, wanted: Wanted) -> list[dict[str, Any]]:
    """The tables of every run and task, then those that hold the runs against each other."""
    shown = []
    for task in found.tasks:
        for name, record in found.records.items():
            if task.name in record.tasks:
                only = replace(record, tasks={task.name: record.tasks[task.name]})
                shown += [_table(table, name, task.name) for table in tables.build(only)]
    if wanted.compare and len(found.first) > 1:
        shown += _compared(found, wanted)
    return shown


def _table(table: Table, run: str, task: str) -> dict[str, Any]:
    return {
        "run": run,
        "task": task,
        "title": table.title,
        "columns": list(table.columns),
        "right": table.right,
        "rows": [list(row) for row in table.rows],
        "notes": list(table.notes),
    }


def _compared(found: Gathered, wanted: Wanted) -> list[dict[str, Any]]:
    """The tables of `compare`; where the runs cannot be compared, a table of nothing that says why."""
    from heartllm_eval.comparison import pairs
    from heartllm_eval.comparison import tables as compared

    sides: Sequence[Any] = [replace(side, label=name) for name, side in found.first.items()]
    try:
        comparison, _ = pairs.compare(sides, pairs.Wanted(options=wanted.options))
    except UsageError as error:  # its text can name samples
        why = str(error) if wanted.ids else "They hold different samples, suites or metrics; `compare` tells which."
        return [_table(Table("The runs are not compared", (), (), (why,)), "", "")]
    return [_table(table, "", "") for table in compared.build(comparison)]

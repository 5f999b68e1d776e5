"""Frozen runs: what every table, interval and paired difference needs of a run, and nothing else, in a few kilobytes.

A run folder holds questions, right answers and what was said: other people's data, and megabytes of it. A frozen run
keeps each metric's per-sample statistics (numbers) and who was asked what *kind* of question. It holds no text of a
question, answer or report and no id of a recording or patient: samples are a hash, patients a number.

    FOLDER/<task>/run.json         what was run, by which code, on which data, with which systems
    FOLDER/<task>/statistics.npz   metric -> values (distinct numbers) and codes (systems, columns, samples) into them
    FOLDER/<task>/manifest.json    SHA-256 of both, and of the samples file
    samples/<task>-<hash>.npz      sample hash, patient's number, question type, slices; shared by all runs of a task

`samples/` lies in the frozen run's own folder, or in one of the folders above it where one exists: rows of a table are
asked the same questions. The same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import DataError, UsageError
from heartllm.texts import read_json
from heartllm.untrusted import inside, read_arrays
from heartllm.writing import write_whole
from heartllm_eval import frozen_arrays as arrays
from heartllm_eval import statistics as stats
from heartllm_eval.files import read_run
from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.base import Array, Metric
from heartllm_eval.planning import RUN_FILE
from heartllm_eval.schema import Request, dumps
from heartllm_eval.scoring import Options, Result, Scored, evaluate, load_metrics, score_system

FROZEN_VERSION = 1
STATISTICS_FILE, MANIFEST_FILE, SAMPLES_FOLDER = "statistics.npz", "manifest.json", "samples"
_LEVELS = 4  # folders above a frozen run in which `samples/` is looked for: row/seed/condition/task
_QUESTION = ("question_type", "attribute_type", "template_id")
# Data that only credentialed users may hold: of a sample nothing is kept but what ECG-QA itself publishes.
_CREDENTIALED = ("mimic",)
_AGAIN = "Freeze the run again: heartllm-eval freeze RUN -o FOLDER."


@dataclass(frozen=True)
class Frozen:
    """A frozen run of one task, read back.

    Attributes:
        folder: where it lies.
        task: the suite's name.
        about: what run.json says of the task (title, kind, primary, slices, hashes, ...).
        record: all of run.json.
        requests: of each sample the hash as its id, the patient's number as its cluster, its type and slices.
        systems: the model first, then its controls.
        metrics: as they were computed; `signatures` says how.
    """

    folder: Path
    task: str
    about: Mapping[str, Any]
    record: Mapping[str, Any]
    requests: Sequence[Request]
    systems: Sequence[Scored]
    metrics: Sequence[Metric]

    @property
    def signatures(self) -> Mapping[str, str]:
        """Metric -> signature."""
        return {name: str(part["signature"]) for name, part in self.record["metrics"].items()}

    def system(self, name: str) -> Scored:
        """The statistics of one system.

        Raises:
            UsageError: if the run has no such system.
        """
        for scored in self.systems:
            if scored.system == name:
                return scored
        known = ", ".join(scored.system for scored in self.systems)
        raise UsageError(
            f"the frozen run has no system {name!r}",
            where=self.folder,
            remedy=f"It has {known}; run it with --control and freeze it again.",
        )


def freeze(
    run: Path, out: Path, *, tasks: Sequence[str] = (), say: Callable[[str], object] = lambda line: None
) -> list[Path]:
    """Freezes a finished run: one folder a task, OUT/<task>, or OUT itself if that is already called like the one task.

    Raises:
        DataError: if RUN is no finished run, or OUT cannot be written to.
        UsageError: for a task that the run has not.
    """
    record, requests, answers = read_run(run)
    if record.get("status") != "done":
        raise DataError(
            f"its status is {record.get('status')!r}", where=run, remedy="Finish it with the same command, or score it."
        )
    unknown = [task for task in tasks if task not in requests]
    if unknown:
        raise UsageError(f"no task {unknown[0]!r}", where=run, remedy=f"It has {', '.join(requests)}.")
    chosen, written = list(tasks) or list(requests), []
    for task in chosen:
        about = record["tasks"][task]
        metrics = load_metrics([name.replace("-nowordnet", "") for name in about["metrics"]])
        systems = [
            score_system(system, requests[task], answers[task, system], metrics)
            for system in record["systems"]
            if (task, system) in answers
        ]
        folder = out if chosen == [out.name] else out / task
        try:
            size = _write(folder, task, record, requests[task], systems, metrics)
        except OSError as error:
            raise DataError(
                f"cannot write there ({error.strerror})", where=folder, remedy="Choose another folder."
            ) from None
        say(f"{folder}: {len(requests[task]):,} samples of {len(systems)} systems in {size / 1024:,.1f} KB")
        written.append(folder)
    return written


def find(root: Path) -> list[Path]:
    """The folders of all frozen runs below `root`, sorted."""
    return sorted(path.parent for path in root.rglob(MANIFEST_FILE) if (path.parent / STATISTICS_FILE).is_file())


def read(folder: Path, *, only: Collection[str] | None = None) -> Frozen:
    """A frozen run, after its hashes were checked.

    Args:
        only: metrics to read; others take memory for nothing where dozens of runs stand in a table.

    Raises:
        UsageError: if there is none.
        DataError: if a file is missing, changed or of a later version.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise UsageError(
            "no frozen run there", where=folder, remedy="Run it, then freeze it: heartllm-eval freeze RUN -o FOLDER."
        )
    manifest = _json(folder / MANIFEST_FILE)
    if manifest.get("version") != FROZEN_VERSION:
        raise DataError(
            f"version {manifest.get('version')!r}; this program reads {FROZEN_VERSION}",
            where=folder / MANIFEST_FILE,
            remedy=f"Use the heartllm version that wrote it. {_AGAIN}",
        )
    samples = _samples_path(folder, str(manifest.get("samples", "")))
    hashes = dict(manifest.get("sha256") or {})
    for name, path in ((RUN_FILE, None), (STATISTICS_FILE, None), (samples.name, samples)):
        _verify(path or inside(folder, name), str(hashes.get(name, "")))
    record = _json(folder / RUN_FILE)
    task, about = str(record["task"]), dict(record["about"])
    try:
        requests = _read_samples(samples, about)
        metrics = [
            _Recorded.recorded(name, part)
            for name, part in record["metrics"].items()
            if only is None or name.replace("-nowordnet", "") in only
        ]
        held = read_arrays(folder / STATISTICS_FILE)
        matrices = {metric.name: arrays.unpack(held, metric.name) for metric in metrics}
        systems = [
            Scored(system, {name: rows[number] for name, rows in matrices.items()})
            for number, system in enumerate(record["systems"])
        ]
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"not a frozen run ({error})", where=folder, remedy=_AGAIN) from None
    for scored in systems:
        if any(len(rows) != len(requests) for rows in scored.statistics.values()):
            raise DataError("statistics and samples do not fit each other", where=folder, remedy=_AGAIN)
    return Frozen(folder, task, about, record, requests, systems, metrics)


def figures(frozen: Frozen, *, options: Options | None = None) -> Result:
    """All figures and differences of a frozen run: those of the run itself."""
    return evaluate(
        frozen.task,
        frozen.requests,
        frozen.systems,
        frozen.metrics,
        slices=[name for name in frozen.about["slices"] if name in frozen.record["slices"]],
        compare=str(frozen.about["primary"]),
        options=options,
    )


class _Recorded(Metric):
    """A metric that scores statistics as the frozen run's did, under the name that it had there.

    METEOR without WordNet is another metric than METEOR; which one it was is a matter of the run, not of this machine.
    """

    def __init__(self, name: str, base: Metric) -> None:
        self.name, self.base = name, base
        self.kind, self.figures = base.kind, base.figures  # type: ignore[misc]
        self.binary, self.without_interval = base.binary, base.without_interval  # type: ignore[misc]

    @classmethod
    def recorded(cls, name: str, about: Mapping[str, Any]) -> _Recorded:
        """The metric of run.json.

        Raises:
            ValueError: if this program's metric of that name gives other figures.
        """
        base = get_metric(name.replace("-nowordnet", ""))
        if list(base.figures) != list(about["figures"]):
            raise ValueError(f"{name} had the figures {', '.join(about['figures'])}")
        return cls(name, base)

    @property
    def signature(self) -> Any:
        return self.base.signature

    def statistics(self, prediction: str, request: Request) -> tuple[float, ...]:
        return self.base.statistics(prediction, request)

    def score(self, totals: Array) -> Array:
        return self.base.score(totals)

    def share(self, figure: int) -> tuple[int, int] | None:
        return self.base.share(figure)


def _write(
    folder: Path,
    task: str,
    record: Mapping[str, Any],
    requests: Sequence[Request],
    systems: Sequence[Scored],
    metrics: Sequence[Metric],
) -> int:
    """Writes one task's frozen run -> bytes, the samples file left out."""
    about = dict(record["tasks"][task])
    asked = str(about["primary"]).replace("-nowordnet", "")
    about["primary"] = next(m.name for m in metrics if m.name.replace("-nowordnet", "") == asked)
    kept = _slices(about, requests)
    frozen = {
        "frozen_version": FROZEN_VERSION,
        "task": task,
        "about": {**about, "metrics": [metric.name for metric in metrics]},
        "metrics": {
            metric.name: {"signature": str(metric.signature), "figures": list(metric.figures)} for metric in metrics
        },
        "slices": list(kept),
        **{name: record.get(name) for name in ("started", "finished", "source", "versions", "data", "peak_memory_mb")},
        "hardware": {key: value for key, value in dict(record.get("hardware") or {}).items() if key != "platform"},
        "settings": {
            key: value
            for key, value in dict(record["settings"]).items()
            if key not in ("data_roots", "cache", "rescored", "notes", "answers_from_cache", "earlier_code")
        },
        "config": without_paths({key: dict(record["config"]).get(key) for key in ("limit", "seed", "perturb")}),
        "suite": dict(dict(record["config"]).get("tasks") or {}).get(task),
        "systems": {scored.system: without_paths(record["systems"][scored.system]) for scored in systems},
        "seconds": {
            scored.system: dict(record.get("timing") or {}).get(f"{task}/{scored.system}_s") for scored in systems
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        RUN_FILE: (dumps(frozen, indent=1) + "\n").encode(),
        STATISTICS_FILE: arrays.archive(
            {
                f"{metric.name}/{part}": array
                for metric in metrics
                for part, array in arrays.pack([scored.statistics[metric.name] for scored in systems]).items()
            }
        ),
    }
    samples = arrays.archive(_sample_arrays(requests, str(about["requests_hash"]), kept))
    name = f"{task}-{hashlib.sha256(samples).hexdigest()[:12]}.npz"
    place = _samples_folder(folder) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, samples)
    hashes = {part: hashlib.sha256(content).hexdigest() for part, content in {**files, name: samples}.items()}
    manifest = {"version": FROZEN_VERSION, "samples": name, "sha256": hashes}
    files[MANIFEST_FILE] = (json.dumps(manifest, indent=1) + "\n").encode()
    for part, content in files.items():
        write_whole(folder / part, content)
    return sum(map(len, files.values()))


def _slices(about: Mapping[str, Any], requests: Sequence[Request]) -> tuple[str, ...]:
    names = dict.fromkeys((*_QUESTION, *about["slices"], *(name for request in requests for name in request.slices)))
    if str(about.get("dataset") or "").startswith(_CREDENTIALED):
        names = dict.fromkeys(_QUESTION)
    return tuple(names)


def _sample_arrays(requests: Sequence[Request], key: str, slices: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    hashes = [hashlib.sha256(f"{key}\x1f{request.id}".encode()).digest()[:8] for request in requests]
    found: dict[str, npt.NDArray[Any]] = {
        "sample": np.frombuffer(b"".join(hashes), dtype=">u8"),
        "patient": arrays.small(stats.number_clusters(request.cluster or request.id for request in requests)),
    }
    for name in slices:
        values = [request.slice(name) for request in requests]
        known = sorted(set(values))
        number = {value: index for index, value in enumerate(known)}
        found[f"{name}/values"] = np.array(known or [""], dtype=np.str_)
        found[f"{name}/codes"] = arrays.small(np.array([number[value] for value in values], dtype=np.int64))
    return found


def _read_samples(path: Path, about: Mapping[str, Any]) -> tuple[Request, ...]:
    held = read_arrays(path)
    hashes, patients = held["sample"], held["patient"]
    names = [key.removesuffix("/codes") for key in held if key.endswith("/codes")]
    columns = {name: held[f"{name}/values"][held[f"{name}/codes"]].tolist() for name in names}
    fields = {name: columns.pop(name, [""] * len(hashes)) for name in _QUESTION}
    return tuple(
        Request(
            id=f"{int(key):016x}",
            kind=about["kind"],
            dataset=str(about.get("dataset") or ""),
            cluster=f"patient {int(patient)}",
            question_type=fields["question_type"][row],
            attribute_type=_unless_unknown(fields["attribute_type"][row]),
            template_id=int(fields["template_id"][row] or 0),
            derived=bool(about.get("derived")),
            slices={name: values[row] for name, values in columns.items()},
        )
        for row, (key, patient) in enumerate(zip(hashes, patients, strict=True))
    )


def _unless_unknown(value: str) -> str:
    return "" if value == "unknown" else value


def _samples_folder(folder: Path) -> Path:
    """The nearest `samples/` above the frozen run, otherwise one of its own."""
    above = list(folder.absolute().parents)[:_LEVELS]
    return next((place / SAMPLES_FOLDER for place in above if (place / SAMPLES_FOLDER).is_dir()), folder)


def _samples_path(folder: Path, name: str) -> Path:
    if not name or Path(name).name != name:
        raise DataError("the manifest names no samples file", where=folder / MANIFEST_FILE, remedy=_AGAIN)
    places = [folder, *(place / SAMPLES_FOLDER for place in list(folder.absolute().parents)[:_LEVELS])]
    return inside(next((place for place in places if (place / name).is_file()), folder), name)


def _verify(path: Path, expected: str) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy=_AGAIN) from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise DataError("it is not what was frozen: its hash differs", where=path, remedy=_AGAIN)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy=_AGAIN) from None
    if not isinstance(found, dict):
        raise DataError("not a JSON object", where=path, remedy=_AGAIN)
    return found


def without_paths(value: Any) -> Any:
    """The value with absolute paths cut to their last part: they say nothing about a run, and much about a machine."""
    if isinstance(value, Mapping):
        return {key: without_paths(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(part) for part in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return Path(value).name
    return value

"""A run without identifiers: what may be shown to people who may not know whose ECGs were asked about.

Ids of samples, recordings and patients become numbers, drawn anew for each export and kept nowhere: nobody, not even
who has the data, can tell from the export which row was whom, other than by what was asked and said. Rows of the same
patient keep the same number, so that intervals stay what they were. Of a patient's features age and measures of the
body stay as they were shown to the model only if `features` is asked for. Free text (questions, answers, reports) is
kept: it is what an answer is; a data set's own reports are as free of names as their publisher made them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heartllm.errors import DataError, UsageError
from heartllm.writing import write_whole
from heartllm_eval import provenance
from heartllm_eval.files import read_run
from heartllm_eval.frozen import without_paths
from heartllm_eval.planning import REQUESTS_FILE, RUN_FILE
from heartllm_eval.samples import SAMPLES_FILE
from heartllm_eval.schema import Prediction, Request, Sample, dumps, ids_hash, requests_hash

# Of run.json's settings: what tells of this machine, its user's files or the ids themselves.
_SETTINGS_DROPPED = ("data_roots", "cache", "rescored", "notes", "earlier_code", "answers_from_cache")


class Numbers:
    """Identifier -> number, in an order that nobody can find out; the same numbers for all runs of one export."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self._known = prefix, dict[str, str]()

    def learn(self, identifiers: Iterable[str]) -> None:
        """Gives new identifiers their numbers."""
        new = sorted(set(identifiers) - self._known.keys())
        secrets.SystemRandom().shuffle(new)
        for identifier in new:
            self._known[identifier] = f"{self.prefix}{len(self._known) + 1:06d}"

    def of(self, identifier: str) -> str:
        """Its number; "" for none."""
        return self._known[identifier] if identifier else ""


def export(runs: Sequence[Path], out: Path, *, features: bool = False, keep_ids: bool = False) -> list[Path]:
    """Writes finished runs to OUT/<name of the run> without identifiers; they compare with each other as before.

    Args:
        features: keep the patient features that were shown. keep_ids: keep ids, and drop machine and paths only.

    Raises:
        UsageError: if two runs have the same name, or OUT is not empty.
        DataError: if a run is not finished, or OUT cannot be written to.
    """
    names = [run.resolve().name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two runs are called {twice!r}", where="export", remedy="Export them one after the other.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("exists already", where=f"--output_path {out}", remedy="Name a new folder.")
    read = [read_run(run) for run in runs]
    samples, recordings, patients = Numbers("sample-"), Numbers("recording-"), Numbers("patient-")
    for _, requests, _ in read:
        asked = [request for part in requests.values() for request in part]
        samples.learn(request.id for request in asked)
        recordings.learn(record for request in asked for record in request.record_ids)
        patients.learn(request.cluster for request in asked if request.cluster)

    def clean(request: Request) -> Request:
        if keep_ids:
            return request if features else replace(request, background="")
        return replace(
            request,
            id=samples.of(request.id),
            record_ids=tuple(map(recordings.of, request.record_ids)),
            cluster=patients.of(request.cluster),
            background=request.background if features else "",
        )

    written = []
    for name, (data, requests, answers) in zip(names, read, strict=True):
        if data.get("status") not in ("done", "predicted"):
            raise DataError(f"its status is {data.get('status')!r}", where=name, remedy="Finish it with its command.")
        try:
            _write(
                out / name, data, {task: list(map(clean, part)) for task, part in requests.items()}, requests, answers
            )
        except OSError as error:
            raise DataError(
                f"cannot write there ({error.strerror})", where=out / name, remedy="Choose another --output_path."
            ) from None
        written.append(out / name)
    return written


def _write(
    folder: Path,
    data: Mapping[str, Any],
    cleaned: Mapping[str, Sequence[Request]],
    requests: Mapping[str, Sequence[Request]],
    answers: Mapping[tuple[str, str], Mapping[str, Prediction]],
) -> None:
    """One run's folder. Rows come in the order of their numbers: that of the run is the data set's own."""
    for task, part in cleaned.items():
        pairs = sorted(zip(part, requests[task], strict=True), key=lambda pair: pair[0].id)
        (folder / task).mkdir(parents=True, exist_ok=True)
        write_whole(folder / task / REQUESTS_FILE, "".join(f"{dumps(request)}\n" for request, _ in pairs))
        for name, system in answers:
            if name == task:
                rows = [Sample(clean, _said(answers[task, system][was.id], clean.id)) for clean, was in pairs]
                (folder / task / system).mkdir(exist_ok=True)
                write_whole(folder / task / system / SAMPLES_FILE, "".join(f"{dumps(row)}\n" for row in rows))
    write_whole(folder / RUN_FILE, dumps(_record(data, cleaned), indent=1) + "\n")


def _said(prediction: Prediction, key: str) -> Prediction:
    """The answer under its new id; why there is none may name a file or a recording."""
    return replace(prediction, id=key, error="no answer" if prediction.error else None)


def _record(data: Mapping[str, Any], cleaned: Mapping[str, Sequence[Request]]) -> dict[str, Any]:
    tasks = {}
    for task, about in data["tasks"].items():
        part = sorted(cleaned[task], key=lambda request: request.id)
        tasks[task] = {**about, "requests_hash": requests_hash(part), "ids_hash": ids_hash(part)}
    settings = {key: value for key, value in dict(data["settings"]).items() if key not in _SETTINGS_DROPPED}
    found: dict[str, Any] = without_paths({**data, "tasks": tasks, "settings": settings})
    return {
        **found,
        "command": ["heartllm-eval", "export"],
        "config": {"deidentified": provenance.now()},
        "hardware": {**dict(data.get("hardware") or {}), "platform": "not told"},
        "error": None,
    }

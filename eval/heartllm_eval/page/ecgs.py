"""Recordings on a page: a few, on request, at a rate and depth that a printed ECG needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heartllm import config
from heartllm.errors import DataError, HeartLLMError
from heartllm_eval.page.gather import Task
from heartllm_eval.requests import Workspace
from heartllm_eval.shift import Shift
from heartllm_eval.suite import Reader

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

RATE = 250  # Hz: 0.1 mm of paper between samples
MICROVOLTS = 5.0  # of one step: 0.05 mm of paper
MISSING = -32768


def chosen(tasks: Sequence[Task], most: int) -> dict[tuple[str, str], tuple[Task, str]]:
    """(dataset, record) -> a task and request id that show it: the recordings that the first system did worst on.

    By the mean of the primary figure over a recording's samples; equal ones in the order of the requests.
    """
    from heartllm_eval.page.columns import primary_figure

    scores: dict[tuple[str, str], list[float]] = {}
    places: dict[tuple[str, str], tuple[Task, str]] = {}
    for task in tasks:
        figure = primary_figure(task) or ""
        for request in task.requests:
            value = task.sides[0].scores[task.name].get(request.id, {}).get(figure)
            for record in request.record_ids:
                places.setdefault((request.dataset, record), (task, request.id))
                scores.setdefault((request.dataset, record), []).extend([] if value is None else [value])
    order = sorted(places, key=lambda key: float(np.mean(scores[key])) if scores[key] else 101.0)
    return {key: places[key] for key in order[:most]}


def read(
    tasks: Sequence[Task],
    seeds: Mapping[Path, int],
    data_roots: Sequence[Path],
    most: int,
    *,
    warn: Callable[[str], None],
) -> dict[tuple[str, str], Recording]:
    """(dataset, record) -> the recording.

    Each is shown as the first run showed it to its models: read, and shifted by `--perturb`, in the same way.

    Args:
        seeds: run folder -> the run's seed, which the noise of `--perturb` is drawn from.
        most: how many at most; one that cannot be read is left out with a warning.

    Raises:
        UsageError, DataError: if a data set cannot be opened.
    """
    workspaces: dict[str, Workspace] = {}
    found = {}
    for (dataset, record), (task, _) in chosen(tasks, most).items():
        if task.name not in workspaces:
            seed = seeds.get(task.sides[0].path, 0)
            workspaces[task.name] = Workspace(data_roots, Shift.of(list(task.about.get("perturb") or ()), seed))
            workspaces[task.name].ask_about(task.requests)
        workspace = workspaces[task.name]
        workspace.dataset(dataset)
        try:
            found[dataset, record] = workspace.read(dataset, record, _reader(task))
        except HeartLLMError as error:
            warn(f"ECG left out: {error}")
    return found


def _reader(task: Task) -> Reader:
    values = dict(dict(task.sides[0].suites.get(task.name) or {}).get("reader") or {})
    return config.from_dict(Reader, values, where=task.sides[0].path)


def packed(recording: Recording) -> dict[str, Any]:
    """What the page draws: rate in Hz, length in samples, millivolts a step, and the samples as bytes.

    Differences of 16-bit samples lead by lead, little-endian: they compress to a third of the samples.
    """
    signal: npt.NDArray[np.float64] = recording.signal.astype(np.float64)
    gaps = ~np.isfinite(signal)
    if not gaps.all() and recording.sampling_rate != RATE:
        from heartllm.ecg.resampling import resample

        filled = np.where(gaps, 0.0, signal)
        times = np.arange(int(np.ceil(signal.shape[1] * RATE / recording.sampling_rate)))
        nearest = np.minimum((times * recording.sampling_rate / RATE).astype(int), signal.shape[1] - 1)
        signal, gaps = np.asarray(resample(filled, recording.sampling_rate, RATE)), gaps[:, nearest]
    if gaps.shape != signal.shape:
        raise DataError("its samples do not fit its rate", where=recording.record_id, remedy="Check the recording.")
    steps = np.clip(np.rint(np.where(gaps, 0.0, signal) * 1000 / MICROVOLTS), MISSING + 1, 32767)
    whole = np.where(gaps, MISSING, steps).astype(np.int64)
    first = np.diff(whole, axis=1, prepend=0)
    return {
        "rate": RATE,
        "length": int(whole.shape[1]),
        "step": MICROVOLTS / 1000,
        "bytes": first.astype("<i2").tobytes(),  # differences wrap around, and so do their sums
    }

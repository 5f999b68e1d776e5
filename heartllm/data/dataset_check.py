"""Passes over a dataset that survive bad recordings.

They go on, count and list the bad ones, and fail only past a stated share.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.data.dataset import Dataset
from heartllm.data.records import Entry
from heartllm.data.splits import check_patients
from heartllm.errors import DataError, HeartLLMError, UsageError

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

MAX_BAD_SHARE = 0.01
_CHUNK = 16  # recordings that a worker reads at a time: enough to hide the cost of sending, few enough to hold
_SHOWN = 3  # bad recordings that an error message names


@dataclass(frozen=True)
class BadRecord:
    """A recording that could not be read, and why."""

    record_id: str
    path: Path
    reason: str


@dataclass
class BadRecords:
    """The bad recordings of one pass.

    Attributes:
        allowed: the share of all recordings that may be bad.
        total: how many recordings the pass covers.
        records: the bad ones so far.
    """

    allowed: float = MAX_BAD_SHARE
    total: int = 0
    records: list[BadRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.allowed <= 1:
            raise UsageError(f"a share of {self.allowed}", remedy="Give 0 to 1.", where="--max_bad_share")

    @property
    def share(self) -> float:
        """Bad recordings among all, 0 to 1."""
        return len(self.records) / self.total if self.total else 0.0

    def check(self, where: str | Path) -> None:
        """Raises `DataError` if the share is past what is allowed."""
        if self.share > self.allowed:
            shown = "; ".join(f"{bad.record_id}: {bad.reason}" for bad in self.records[:_SHOWN])
            raise DataError(
                f"{len(self.records)} of {self.total} recordings cannot be read, over {self.allowed:.1%} ({shown})",
                remedy="Repair or fetch them again, or allow more with --max_bad_share.",
                where=where,
            )


def _attempt(read: Callable[[], Recording]) -> Recording | str:
    """The recording, or the reason why it cannot be read."""
    try:
        return read()
    except HeartLLMError as error:
        return error.what
    except (OSError, ValueError) as error:  # what the decoders of damaged files raise
        return f"{type(error).__name__}: {error}"


def _read_chunk(paths: list[Path], options: Mapping[str, Any]) -> list[Recording | str]:
    """Runs in a worker process."""
    from heartllm.ecg import read_recording

    return [_attempt(partial(read_recording, path, **options)) for path in paths]


def _read_in_workers(
    name: str, entries: Sequence[Entry], workers: int, options: Mapping[str, Any]
) -> Iterator[Recording | str]:
    """Reads in order, with a bounded number of chunks under way so that memory does not grow with the dataset."""
    options = {"source": name, **options}
    paths = iter([entry.path for entry in entries])
    waiting: deque[Future[list[Recording | str]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            while True:
                while len(waiting) < 2 * workers and (chunk := list(islice(paths, _CHUNK))):
                    waiting.append(pool.submit(_read_chunk, chunk, options))
                if not waiting:
                    return
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def read_all(
    dataset: Dataset,
    entries: Sequence[Entry],
    *,
    max_bad_share: float = MAX_BAD_SHARE,
    bad: BadRecords | None = None,
    workers: int = 0,
    **options: Any,
) -> Iterator[tuple[Entry, Recording]]:
    """Reads recordings in the order of `entries` and goes on over bad ones.

    Args:
        dataset: where the entries come from.
        entries: what to read.
        max_bad_share: the share of `entries` that may be bad, unless `bad` states its own.
        bad: where bad recordings are listed; pass one to see them, or to allow more.
        workers: processes to read with; 0 reads in this one. With workers, waveforms are read from `entry.path`.
        options: for `heartllm.ecg.read_recording`.

    Yields:
        Each entry that can be read, with its recording.

    Raises:
        DataError: as soon as more than the allowed share is bad.
    """
    bad = BadRecords(max_bad_share) if bad is None else bad
    bad.total = len(entries)
    if workers > 0:
        results = _read_in_workers(dataset.name, entries, workers, options)
    else:
        results = (_attempt(partial(dataset.read, entry, **options)) for entry in entries)
    for entry, result in zip(entries, results, strict=True):
        if isinstance(result, str):
            bad.records.append(BadRecord(entry.record_id, entry.path, result))
            bad.check(dataset.root)
        else:
            yield entry, result


@dataclass(frozen=True)
class CheckResult:
    """What a pass over a dataset found.

    Attributes:
        entries: recordings looked at. patients: their patients.
        bad: those that cannot be read.
        notes: what reading had to do ("lead III derived from I and II") -> recordings.
        labelled: kind of label -> recordings that carry it.
    """

    entries: int
    patients: int
    bad: BadRecords
    notes: Mapping[str, int]
    labelled: Mapping[str, int]


def label_counts(entries: Sequence[Entry]) -> dict[str, int]:
    """How many entries are labelled for each kind of label, and how many have a report, an age, a sex."""
    counts: Counter[str] = Counter()
    for entry in entries:
        labels = entry.labels
        known = {
            "statements": labels.statements is not None,
            "noise": labels.noise is not None,
            "infarction stages": labels.infarction_stages is not None,
            "extra systoles": labels.extra_systoles is not None,
            "heart axis": labels.heart_axis is not None,
            "intervals": bool(labels.intervals),
            "report": entry.report is not None,
            "age": entry.age is not None,
            "sex": entry.sex is not None,
        }
        counts.update({kind: int(value) for kind, value in known.items()})
    return dict(counts)


def check_dataset(
    dataset: Dataset,
    split: str | None = None,
    *,
    max_bad_share: float = MAX_BAD_SHARE,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """Reads every recording of a split (or of all) and checks that ids are unique and no patient is in two splits.

    Args:
        progress: called with (recordings read, recordings in all).

    Raises:
        DataError: ids or patients are wrong. Too many bad recordings do not raise here: call `result.bad.check(...)`
            after showing them.
    """
    check_patients(dataset.iter_entries())
    entries = dataset.entries(split)
    repeated = [record_id for record_id, count in Counter(e.record_id for e in entries).items() if count > 1]
    if repeated:
        raise DataError(f"the id {repeated[0]} occurs more than once", remedy="Ids must be unique.", where=dataset.root)
    BadRecords(max_bad_share)  # a wrong share is refused before hours of reading
    bad = BadRecords(allowed=1.0)
    notes: Counter[str] = Counter()
    for number, (_, recording) in enumerate(read_all(dataset, entries, bad=bad, workers=workers), start=1):
        notes.update(recording.notes)
        if progress is not None:
            progress(number + len(bad.records), len(entries))
    bad.allowed = max_bad_share
    return CheckResult(len(entries), len({e.patient_id for e in entries}), bad, notes, label_counts(entries))

"""From a suite to its requests. Datasets are opened, and questions built, only when they are asked for."""

from __future__ import annotations

import copy
import glob
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError, UsageError
from heartllm_eval.schema import Request, cluster_id, digest
from heartllm_eval.shift import Shift
from heartllm_eval.suite import Reader, Suite

if TYPE_CHECKING:
    from heartllm.data.records import Entry, Labels, Question
    from heartllm.ecg.recording import Recording

ONE_ECG_TEMPLATES = 42  # templates 43 to 70 compare two ECGs
AGE_BANDS = ((40, "0-39"), (60, "40-59"), (80, "60-79"))


class Workspace:
    """The datasets of a run, opened once each.

    Args:
        data_roots: folders that hold ptbxl/, ecgqa/, synthetic-a/, ...; the first that holds a dataset is taken.
        shift: what is done to the recordings that are asked about (`ask_about`); those that a control learns from stay
            as they are.
    """

    def __init__(self, data_roots: Sequence[Path] = (), shift: Shift | None = None) -> None:
        self.data_roots, self.shift = tuple(data_roots), shift or Shift()
        self._shifted: set[tuple[str, str]] = set()
        self._datasets: dict[str, Any] = {}
        self._entries: dict[str, dict[str, Entry]] = {}
        self._hashes: dict[tuple[str, str], str] = {}
        self.left_out: dict[str, int] = {}  # suite -> questions of its files whose recordings are not in the dataset
        self.answers_known_from: dict[str, str] = {}  # suite -> how it is known which answers were seen in training
        self.other_split: dict[str, int] = {}  # suite -> its recordings that the dataset has in another split, if any

    def dataset(self, name: str) -> Any:
        """The dataset called `name` (`heartllm.data.Dataset`).

        Raises:
            UsageError: without a data root, or where one does not exist.
            DataError: if no root holds the dataset.
        """
        if name not in self._datasets:
            if not self.data_roots:
                raise UsageError(
                    f"the dataset {name!r} is needed and no data folder was named",
                    where="--data_root",
                    remedy="Give --data_root DIR or set HEARTLLM_DATA; it holds ptbxl/, ecgqa/, synthetic-a/, ...",
                )
            for root in self.data_roots:
                if not root.is_dir():
                    raise UsageError("no such folder", where=f"--data_root {root}", remedy="Check the path.")
            from heartllm.data.dataset import FOLDERS, open_dataset

            holding = (root for root in self.data_roots if (root / FOLDERS.get(name, "")).is_dir())
            self._datasets[name] = open_dataset(name, next(holding, self.data_roots[0]))
        return self._datasets[name]

    @property
    def where(self) -> str:
        """The data roots, for messages."""
        return ", ".join(map(str, self.data_roots))

    def entries(self, name: str, split: str | None = None) -> list[Entry]:
        """The entries of a dataset's split.

        Raises:
            DataError: if there are none.
        """
        found = list(self.dataset(name).entries(split))
        if not found:
            raise DataError(
                f"{name} has no recordings in split {split!r}", where=self.where, remedy="Check the data folder."
            )
        return found

    def entry(self, name: str, record_id: str) -> Entry:
        """One entry by its record id."""
        if name not in self._entries:
            self._entries[name] = {entry.record_id: entry for entry in self.dataset(name).entries(None)}
        try:
            return self._entries[name][record_id]
        except KeyError:
            raise DataError(
                f"{name} has no recording {record_id!r}", where=self.where, remedy="Check the data folder."
            ) from None

    def with_shift(self, shift: Shift) -> Workspace:
        """Another one with this shift, which shares what this one has opened and hashed."""
        other = copy.copy(self)
        other.shift, other._shifted = shift, set()
        return other

    def ask_about(self, requests: Iterable[Request]) -> None:
        """Names the requests whose recordings are to be shifted; without a shift this does nothing."""
        if self.shift:
            self._shifted.update((request.dataset, record) for request in requests for record in request.record_ids)

    def read(self, name: str, record_id: str, reader: Reader | None = None) -> Recording:
        """A recording as the suite's reader wants it, shifted where that is asked for.

        Raises:
            DataError: if it cannot be read so.
        """
        reader = reader or Reader()
        dataset = self.dataset(name)
        recording: Recording = dataset.read(
            self.entry(name, record_id), length=reader.length, nan_policy=reader.nan_policy
        )
        return self.shift(recording) if (name, record_id) in self._shifted else recording

    def recording_hash(self, name: str, record_id: str) -> str:
        """A hash of what `read` gives: what a cache may rely on, other than the recording's name.

        Raises:
            DataError: if there is no such file.
        """
        content = self.files_hash(name, record_id)
        return self.shift.mark(content, name, record_id) if (name, record_id) in self._shifted else content

    def files_hash(self, name: str, record_id: str) -> str:
        """The SHA-256 of a recording's files.

        Raises:
            DataError: if there is no such file.
        """
        key = (name, record_id)
        if key not in self._hashes:
            path = Path(self.entry(name, record_id).path)
            files = sorted(path.parent.glob(f"{glob.escape(path.name)}.*")) or [path]
            total = hashlib.sha256()
            try:
                for file in files:
                    total.update(file.name.encode() + b"\0" + file.read_bytes())
            except OSError as error:
                raise DataError(
                    f"cannot be read ({error.strerror})", where=path, remedy="Check the data folder."
                ) from None
            self._hashes[key] = total.hexdigest()
        return self._hashes[key]


def build_requests(suite: Suite, workspace: Workspace, *, split: str | None = None) -> list[Request]:
    """All requests of a suite, in a fixed order.

    Args:
        suite: what to ask.
        workspace: where the data is.
        split: another split than the suite's (controls learn from its training split).
    """
    chosen = split or suite.split
    if suite.kind == "report":
        entries = workspace.entries(suite.dataset, chosen)
        requests = [_report_request(suite, entry) for entry in entries if entry.report]
    elif suite.questions.source == "derived":
        requests = _derived(suite, workspace.entries(suite.dataset, chosen))
    else:
        requests = _genuine(suite, workspace, chosen)
    if not requests:
        raise DataError(
            f"suite {suite.name} finds nothing to ask in split {chosen!r}",
            where=workspace.where,
            remedy="Check the data folder.",
        )
    return _unique(requests)


def _derived(suite: Suite, entries: Sequence[Entry]) -> list[Request]:
    from heartllm.data.questions import QuestionBuilder, options

    asked = suite.questions
    builder = QuestionBuilder(templates=asked.templates or None, min_positives=asked.min_positives)
    drawn = builder.draw(entries, per_cell=asked.per_cell, seed=asked.seed, paraphrase=asked.paraphrase)
    by_id = {entry.record_id: entry for entry in entries}
    make = _QARequests(suite)
    return [make(question, [by_id[question.ecg_id[0]]], options(question)) for question in drawn]


def _genuine(suite: Suite, workspace: Workspace, split: str) -> list[Request]:
    """The rows of ECG-QA's files of this split whose recordings are all in the dataset.

    The files define the split, whatever the dataset's own is. How many rows are left out is kept in the workspace.
    """
    from heartllm.data.ecgqa import find_classes, read_questions
    from heartllm.data.questions import options

    wording = "paraphrased" if suite.questions.paraphrase else "template"
    below = suite.questions.files.format(wording=wording, split=split)
    folder = next((root / below for root in workspace.data_roots if (root / below).is_dir()), Path(below))
    files = sorted(folder.glob("*.json"))
    if not files:
        raise DataError(
            "no ECG-QA files",
            where=folder,
            remedy="Put the split's JSON files there, or ask a suite with derived questions.",
        )
    classes = find_classes(files[0])
    by_id = {entry.record_id: entry for entry in workspace.entries(suite.dataset)}
    make, found, absent = _QARequests(suite), [], 0
    for path in files:
        for question in read_questions(path, classes):
            if len(question.ecg_id) != suite.questions.ecgs:
                continue
            if not all(record in by_id for record in question.ecg_id):
                absent += 1
                continue
            allowed = tuple(sorted(classes.get(question.template_id, ())))
            known = options(question) if question.template_id <= ONE_ECG_TEMPLATES else allowed
            found.append(make(question, [by_id[record] for record in question.ecg_id], known))
    workspace.left_out[suite.name] = absent
    asked = {record for request in found for record in request.record_ids}
    elsewhere = sum(by_id[record].split not in (None, split) for record in asked)
    if split == suite.split and elsewhere:
        workspace.other_split[suite.name] = elsewhere
    return found


def other_split_note(suite: Suite, workspace: Workspace) -> str:
    """What must be known of a suite's figures where its files and its dataset are split in different ways."""
    return (
        f"{workspace.other_split[suite.name]:,} recordings of {suite.name}'s {suite.split} files are in another split "
        f"of {suite.dataset} itself: a model trained on its splits may have learned from them"
    )


class _QARequests:
    """Makes requests from questions; each recording's text and slices are worked out once."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self._background: dict[str, str] = {}
        self._slices: dict[str, dict[str, str]] = {}

    def __call__(self, question: Question, entries: Sequence[Entry], options: tuple[str, ...]) -> Request:
        """`entries` are the question's recordings, in its order."""
        dataset, asked = self.suite.dataset, question.question
        key = digest(dataset, *question.ecg_id, str(question.template_id), asked, *question.attribute)
        if self.suite.prompt.options and options:
            asked = f"{asked} Options: {'; '.join(options)}."
        return Request(
            id=f"{dataset}-{'+'.join(question.ecg_id)}-{question.template_id}-{key}",
            kind="qa",
            dataset=dataset,
            record_ids=tuple(question.ecg_id),
            cluster=cluster_id(dataset, entries[0].patient_id) if self.suite.cluster == "patient" else "",
            question=asked,
            question_type=question.question_type,
            attribute_type=question.attribute_type,
            template_id=question.template_id,
            attribute=tuple(question.attribute),
            options=options,
            background=self._features(entries) if self.suite.prompt.features else "",
            references=tuple(question.answer) or ("none",),
            derived=question.derived,
            slices=self._common_slices(entries),
        )

    def _features(self, entries: Sequence[Entry]) -> str:
        texts = []
        for entry in entries:
            if entry.record_id not in self._background:
                self._background[entry.record_id] = patient_background(entry)
            texts.append(self._background[entry.record_id])
        if len(set(texts)) == 1:  # one ECG, or two of one patient
            return texts[0]
        return " ".join(f"{name} ECG: {text}" for name, text in zip(("First", "Second"), texts, strict=True))

    def _common_slices(self, entries: Sequence[Entry]) -> dict[str, str]:
        for entry in entries:
            if entry.record_id not in self._slices:
                self._slices[entry.record_id] = entry_slices(entry)
        first, *others = (self._slices[entry.record_id] for entry in entries)
        return {
            name: value if all(other[name] == value for other in others) else "mixed" for name, value in first.items()
        }


def _report_request(suite: Suite, entry: Entry) -> Request:
    return Request(
        id=f"{suite.dataset}-{entry.record_id}-report",
        kind="report",
        dataset=suite.dataset,
        record_ids=(entry.record_id,),
        cluster=cluster_id(suite.dataset, entry.patient_id) if suite.cluster == "patient" else "",
        question_type="report",
        background=patient_background(entry) if suite.prompt.features else "",
        references=(entry.report or "",),
        slices=entry_slices(entry),
    )


def patient_background(entry: Entry) -> str:
    """The structured patient features as text (TAB)."""
    from heartllm.data.tabular import patient_features

    return str(patient_features(entry))


def entry_slices(entry: Entry) -> dict[str, str]:
    """Sex and age band of a recording's patient, the device, and whether noise is noted in the recording."""
    if entry.age is None:
        age = "unknown"
    else:
        years = entry.age
        age = next((name for limit, name in AGE_BANDS if years < limit), "80+")
    return {
        "sex": entry.sex or "unknown",
        "age": age,
        "device": entry.device or "unknown",
        "quality": noted_quality(entry.labels),
    }


def noted_quality(labels: Labels) -> str:
    """ "noise noted" in any lead, "clean" where every kind of noise is denied, else "unknown": as the dataset tells."""
    from heartllm.data.records import NOISE_KINDS

    noise = labels.noise or {}
    if any(noise.values()):
        return "noise noted"
    return "clean" if all(kind in noise for kind in NOISE_KINDS) else "unknown"


def _unique(requests: Iterable[Request]) -> list[Request]:
    """The same question asked twice of one recording is asked once."""
    return list({request.id: request for request in requests}.values())


def parse_limit(text: str) -> int | Fraction:
    """ "200" is a number of requests, "0.1" a share of them.

    Raises:
        UsageError: for anything else.
    """
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0 or (value > 1 and (value.denominator != 1 or "." in text)):
        raise UsageError(
            f"{text!r} is neither a number of requests nor a share", where="--limit", remedy="Write 200 or 0.1."
        )
    return int(value) if value.denominator == 1 and "." not in text else value


def limit_requests(requests: Sequence[Request], limit: int | Fraction, seed: int) -> list[Request]:
    """A seeded subset with the strata (question type x attribute type) in proportion, in the order of `requests`.

    Chosen by the hash of seed and id, so that it depends neither on order nor on what else is asked. A share that is
    no whole number of requests is given to the strata with the largest remainders.
    """
    wanted = limit if isinstance(limit, int) else max(1, round(limit * len(requests)))
    if wanted >= len(requests):
        return list(requests)
    strata: dict[tuple[str, str], list[Request]] = defaultdict(list)
    for request in requests:
        strata[request.question_type, request.attribute_type].append(request)
    shares = {key: Fraction(wanted * len(part), len(requests)) for key, part in strata.items()}
    counts = {key: int(share) for key, share in shares.items()}
    spare = sorted(shares, key=lambda key: (counts[key] - shares[key], key))
    for key in spare[: wanted - sum(counts.values())]:
        counts[key] += 1
    kept: set[str] = set()
    for key, part in strata.items():
        ranked = sorted(part, key=lambda request: hashlib.sha256(f"{seed}\x1f{request.id}".encode()).digest())
        kept.update(request.id for request in ranked[: counts[key]])
    return [request for request in requests if request.id in kept]

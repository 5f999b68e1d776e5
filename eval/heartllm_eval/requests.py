"""From a suite to its requests. Datasets are opened, and questions built, only when they are asked for."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError, UsageError
from heartllm_eval.schema import Request, cluster_id, digest
from heartllm_eval.suite import Suite

if TYPE_CHECKING:
    from heartllm.data.records import Entry, Question

AGE_BANDS = ((40, "0-39"), (60, "40-59"), (80, "60-79"))


class Workspace:
    """The datasets of a run, opened once each.

    Args:
        data_roots: folders that hold ptbxl/, ecgqa/, synthetic-a/, ...; the first that holds a dataset is taken.
    """

    def __init__(self, data_roots: Sequence[Path] = ()) -> None:
        self.data_roots = tuple(data_roots)
        self._datasets: dict[str, Any] = {}
        self._entries: dict[str, dict[str, Entry]] = {}

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


def build_requests(suite: Suite, workspace: Workspace, *, split: str | None = None) -> list[Request]:
    """All requests of a suite, in a fixed order.

    Args:
        suite: what to ask.
        workspace: where the data is.
        split: another split than the suite's (controls learn from its training split).
    """
    chosen = split or suite.split
    entries = workspace.entries(suite.dataset, chosen)
    if suite.kind == "report":
        requests = [_report_request(suite, entry) for entry in entries if entry.report]
    else:
        by_id = {entry.record_id: entry for entry in entries}
        draw = _derived if suite.questions.source == "derived" else _genuine
        from heartllm.data.questions import options

        features: dict[str, str] = {}
        requests = [
            _qa_request(suite, question, by_id[question.ecg_id[0]], options(question), features)
            for question in draw(suite, workspace, entries, chosen)
            if len(question.ecg_id) == 1 and question.ecg_id[0] in by_id
        ]
    if not requests:
        raise DataError(
            f"suite {suite.name} finds nothing to ask in split {chosen!r}",
            where=workspace.where,
            remedy="Check the data folder.",
        )
    return _unique(requests)


def _derived(suite: Suite, workspace: Workspace, entries: Sequence[Entry], split: str) -> list[Question]:
    from heartllm.data.questions import QuestionBuilder

    asked = suite.questions
    drawn: list[Question] = QuestionBuilder().draw(
        entries, per_cell=asked.per_cell, seed=asked.seed, paraphrase=asked.paraphrase
    )
    return drawn


def _genuine(suite: Suite, workspace: Workspace, entries: Sequence[Entry], split: str) -> list[Question]:
    from heartllm.data.ecgqa import read_questions

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
    return [question for path in files for question in read_questions(path)]


def _qa_request(
    suite: Suite, question: Question, entry: Entry, options: tuple[str, ...], features: dict[str, str]
) -> Request:
    key = digest(suite.dataset, *question.ecg_id, str(question.template_id), question.question, *question.attribute)
    if entry.record_id not in features:
        features[entry.record_id] = patient_background(entry)
    return Request(
        id=f"{suite.dataset}-{entry.record_id}-{question.template_id}-{key}",
        kind="qa",
        dataset=suite.dataset,
        record_ids=tuple(question.ecg_id),
        cluster=cluster_id(suite.dataset, entry.patient_id),
        question=question.question,
        question_type=question.question_type,
        attribute_type=question.attribute_type,
        template_id=question.template_id,
        attribute=tuple(question.attribute),
        options=options,
        background=features[entry.record_id],
        references=tuple(question.answer) or ("none",),
        derived=question.derived,
        slices=entry_slices(entry),
    )


def _report_request(suite: Suite, entry: Entry) -> Request:
    return Request(
        id=f"{suite.dataset}-{entry.record_id}-report",
        kind="report",
        dataset=suite.dataset,
        record_ids=(entry.record_id,),
        cluster=cluster_id(suite.dataset, entry.patient_id),
        question_type="report",
        background=patient_background(entry),
        references=(entry.report or "",),
        slices=entry_slices(entry),
    )


def patient_background(entry: Entry) -> str:
    """The structured patient features as text (TAB)."""
    from heartllm.data.tabular import patient_features

    return str(patient_features(entry))


def entry_slices(entry: Entry) -> dict[str, str]:
    """Sex and age band of a recording's patient."""
    if entry.age is None:
        age = "unknown"
    else:
        years = entry.age
        age = next((name for limit, name in AGE_BANDS if years < limit), "80+")
    return {"sex": entry.sex or "unknown", "age": age}


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
    if value <= 0 or (value > 1 and value.denominator != 1):
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

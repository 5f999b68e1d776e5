"""Leakage: recordings or patients that one stage learns from and another is scored on.

Each task (questions, reports, pretraining) has splits of its own, and they need not fit together: in the authors' files
some recordings of the report training set are in ECG-QA's test split.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from heartllm.data.dataset import did_you_mean
from heartllm.data.dataset_json import json_files, load_rows
from heartllm.data.ecgqa import read_questions
from heartllm.data.records import SPLITS, Entry
from heartllm.data.reports import read_reports
from heartllm.errors import UsageError

ROLES = (*SPLITS, "pretrain")
_LEARNT = frozenset({"train", "pretrain"})
_EXAMPLES = 5


@dataclass(frozen=True)
class Overlap:
    """What two groups share.

    Attributes:
        first, second: group names, "task/role" ("qa/train", "report/test", "codec/pretrain").
        records: shared recordings. patients: shared patients, None where patients are not known.
        leak: whether sharing is wrong: one group is learnt from and the other scored on, or one chooses (valid) and the
            other scores (test).
        examples: some of the shared recordings.
    """

    first: str
    second: str
    records: int
    patients: int | None
    leak: bool
    examples: tuple[str, ...]


def role_of(group: str) -> str:
    """The role that a group's name ends with.

    Raises:
        UsageError: it ends with none of `ROLES`.
    """
    role = group.rsplit("/", 1)[-1]
    if role not in ROLES:
        raise UsageError(
            f"the group {group!r} has no role",
            remedy=f"Call it TASK/ROLE. {did_you_mean(role, ROLES)}",
            where="--group",
        )
    return role


def overlaps(groups: Mapping[str, Iterable[str]], patient_of: Mapping[str, str] | None = None) -> list[Overlap]:
    """Compares every two groups of recording ids.

    Args:
        groups: name -> ids; the name ends with the group's role, see `role_of`.
        patient_of: recording -> patient, to find patients that are shared by different recordings.

    Returns:
        One row for every two groups of different roles, those that leak first, then by size.
    """
    ids = {name: set(members) for name, members in groups.items()}
    rows = []
    for first, second in combinations(ids, 2):
        roles = {role_of(first), role_of(second)}
        if len(roles) == 1 or roles <= _LEARNT:
            continue
        shared = sorted(ids[first] & ids[second])
        patients = None
        if patient_of is not None:
            sides = ({patient_of[i] for i in ids[name] if i in patient_of} for name in (first, second))
            patients = len(set.intersection(*sides))
        leak = bool(shared) or bool(patients)
        rows.append(Overlap(first, second, len(shared), patients, leak, tuple(shared[:_EXAMPLES])))
    return sorted(rows, key=lambda row: (not row.leak, -row.records, row.first, row.second))


def split_groups(entries: Iterable[Entry], task: str = "recordings") -> dict[str, set[str]]:
    """The recording ids of each split of a dataset."""
    groups: dict[str, set[str]] = {f"{task}/{split}": set() for split in SPLITS}
    for entry in entries:
        if entry.split is not None:
            groups[f"{task}/{entry.split}"].add(entry.record_id)
    return groups


def ids_in(path: Path) -> set[str]:
    """The recording ids of a question file, a report file, a folder of either, or a text file with one id a line."""
    if path.suffix in (".txt", ".tsv"):
        return {line.split("\t")[-1].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    first = next((row for file in json_files(path) for row in load_rows(file)), {})
    if "question" not in first:
        return {row.ecg_id for row in read_reports(path)}
    return {record_id for question in read_questions(path) for record_id in question.ecg_id}


def published_groups(data_root: Path, dataset: str) -> dict[str, set[str]]:
    """The groups that lie below a data root for one dataset: ECG-QA's lists and rows, and the reports."""
    groups: dict[str, set[str]] = {}
    questions, reports = data_root / "ecgqa" / dataset, data_root / "reports" / dataset
    for split in SPLITS:
        if (questions / f"{split}_ecgs.tsv").is_file():
            groups[f"qa list/{split}"] = ids_in(questions / f"{split}_ecgs.tsv")
        for wording in ("template", "paraphrased"):
            if (questions / wording / split).is_dir():
                groups[f"qa {wording}/{split}"] = ids_in(questions / wording / split)
        if (reports / f"{split}.json").is_file():
            groups[f"report/{split}"] = {row.ecg_id for row in read_reports(reports / f"{split}.json")}
    return groups

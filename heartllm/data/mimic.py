"""MIMIC-IV-ECG as published on PhysioNet: `record_list.csv`, `machine_measurements.csv`, waveforms below `files/`.

The report is the machine's statements, one sentence each. Labels come from them through `machine_statements.csv`,
intervals and axis from the measured times. Both tables are streamed side by side: of 800,000 rows
`iter_entries` holds about 0.1 GB, `entries` about 1 GB.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from heartllm.data.dataset import FileDataset
from heartllm.data.dataset_tables import below, number, read_rows, whole
from heartllm.data.records import Entry, Labels
from heartllm.data.splits import MANIFEST_NAME, hashed_split, read_manifest
from heartllm.data.statements import read_table

RECORDS, MEASUREMENTS, PATIENTS = "record_list.csv", "machine_measurements.csv", "patients.csv"
TIMES = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "qrs_axis")
REPORT_COLUMNS = tuple(f"report_{index}" for index in range(18))
# What a surface ECG can show, in ms. The machines write 29999, 32767 or 65535 for "not measured".
PLAUSIBLE = {
    "rr interval": (200, 3000),
    "p duration": (20, 250),
    "pr interval": (50, 600),
    "qrs duration": (30, 300),
    "qt interval": (150, 800),
    "qt corrected": (200, 800),
}
CERTAIN, HEDGED = 100.0, 50.0  # PTB-XL's scale of likelihoods, so that ECG-QA's rule makes a hedged finding "not sure"
AGE_CENSORED, CENSORED_AT = 89, 90  # MIMIC-IV writes 91 for everyone older than 89

# A hedge or a denial holds for its clause: "Left axis deviation - possible left anterior fascicular block".
_CLAUSES = re.compile(r" with | - |^- | but ")
_HEDGE = re.compile(
    r"possibl|probabl|consider|cannot (be )?(ruled? out|excluded?)|may be|suggest|borderline|minor|except|\?"
)
_DENIED = re.compile(
    r"\bno (evidence|longer|sign|acute|definite|st\b|ischemi|q\b)|\bnot\b|absent|resolved|previous|compared|replaced"
    r"|age.related"
)


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    unless: re.Pattern[str] | None
    name: str


@lru_cache(maxsize=1)
def _rules() -> tuple[_Rule, ...]:
    return tuple(
        _Rule(
            re.compile(rf"(?<!\w)(?:{row['pattern']})"),
            re.compile(row["unless"]) if row["unless"] else None,
            row["name"],
        )
        for row in read_table("machine_statements.csv")
    )


@lru_cache(maxsize=20_000)
def statement_names(statement: str) -> tuple[tuple[str, float], ...]:
    """The ECG-QA names that one machine statement stands for, with likelihoods; empty where it stands for none."""
    found: dict[str, float] = {}
    for clause in _CLAUSES.split(" ".join(statement.lower().split())):
        if _DENIED.search(clause):
            continue
        likelihood = HEDGED if _HEDGE.search(clause) else CERTAIN
        for rule in _rules():
            if rule.pattern.search(clause) and not (rule.unless and rule.unless.search(clause)):
                found[rule.name] = max(likelihood, found.get(rule.name, 0.0))
    return tuple(found.items())


@lru_cache(maxsize=100_000)  # equal reports share one mapping and one text in memory
def parse_statements(statements: tuple[str, ...]) -> tuple[Mapping[str, float] | None, str | None]:
    """The labels and the report text of a recording's machine statements; (None, None) where there are none."""
    if not statements:
        return None, None
    found: dict[str, float] = {}
    for statement in statements:
        for name, likelihood in statement_names(statement):
            found[name] = max(likelihood, found.get(name, 0.0))
    return found, " ".join(f"{statement.rstrip('. ')}." for statement in statements)


def measured_intervals(times: Mapping[str, float | None]) -> dict[str, float]:
    """ECG-QA's numeric features in ms from the machine's times; what is missing or implausible is left out.

    Values are whole ms, the machine's resolution. QT is corrected by Bazett's formula, QT / sqrt(RR in s).
    """

    def span(start: str, end: str) -> float | None:
        first, last = times.get(start), times.get(end)
        return None if first is None or last is None else last - first

    values = {
        "rr interval": times.get("rr_interval"),
        "p duration": span("p_onset", "p_end"),
        "pr interval": span("p_onset", "qrs_onset"),
        "qrs duration": span("qrs_onset", "qrs_end"),
        "qt interval": span("qrs_onset", "t_end"),
    }
    found = {name: _whole_ms(v) for name, v in values.items() if v is not None and _plausible(name, v)}
    if "qt interval" in found and "rr interval" in found:
        corrected = _whole_ms(found["qt interval"] / (found["rr interval"] / 1000) ** 0.5)
        if _plausible("qt corrected", corrected):
            found["qt corrected"] = corrected
    return found


@lru_cache(maxsize=4096)  # equal values share one object: 800,000 recordings have about five million of them
def _shared(value: int) -> float:
    return float(value)


def _whole_ms(value: float) -> float:
    return _shared(round(value))


def _plausible(name: str, value: float) -> bool:
    low, high = PLAUSIBLE[name]
    return low <= value <= high


def axis_name(degrees: float | None) -> str | None:
    """The frontal QRS axis as ECG-QA names it: normal -30 to 90, left to -90, right to 180, extreme beyond."""
    if degrees is None or not -180 <= degrees <= 360:
        return None
    degrees = degrees - 360 if degrees > 180 else degrees
    if -30 <= degrees <= 90:
        return "normal heart axis"
    if degrees > 90:
        return "right axis deviation"
    return "left axis deviation" if degrees >= -90 else "extreme axis deviation"


def labels_of(row: Mapping[str, str], where: str) -> tuple[Labels, str | None]:
    """Labels and report of one row of `machine_measurements.csv`. Noise, stages and extra systoles are not labelled."""
    statements = tuple(text for column in REPORT_COLUMNS if (text := (row.get(column) or "").strip()))
    found, report = parse_statements(statements)
    times = {column: number(row, column, where) for column in TIMES}
    return Labels(
        statements=found, heart_axis=axis_name(times["qrs_axis"]), intervals=measured_intervals(times)
    ), report


def read_measurements(path: Path) -> Iterator[tuple[str, tuple[Labels, str | None]]]:
    """Yields (study id, (labels, report)) of each row."""
    for line, row in read_rows(path, ["study_id", REPORT_COLUMNS[0], *TIMES]):
        yield whole(row["study_id"]), labels_of(row, f"{path}:{line}")


@dataclass(frozen=True)
class Patient:
    """A row of MIMIC-IV's `patients.csv`: the age in `anchor_year` of the patient's own shifted calendar."""

    age: float | None
    anchor_year: float | None
    sex: str | None

    def age_in(self, year: float | None) -> float | None:
        """The age in a year of the same calendar; the anchor age where either year is not known."""
        if self.age is None or self.anchor_year is None or year is None or not 0 <= year - self.anchor_year < 60:
            return self.age
        return self.age + year - self.anchor_year


def read_patients(path: Path) -> dict[str, Patient]:
    """`patients.csv`: subject id -> age and sex."""
    return {
        whole(row["subject_id"]): Patient(
            number(row, "anchor_age", f"{path}:{line}"),
            number(row, "anchor_year", f"{path}:{line}") if "anchor_year" in row else None,
            {"F": "female", "M": "male"}.get(row["gender"].strip().upper()),
        )
        for line, row in read_rows(path, ["subject_id", "anchor_age", "gender"])
    }


def _year(time: str) -> float | None:
    return float(time[:4]) if time[:4].isdigit() else None


def _join(
    wanted: Iterator[tuple[int, dict[str, str]]], measured: Iterator[tuple[str, tuple[Labels, str | None]]]
) -> Iterator[tuple[int, dict[str, str], Labels, str | None]]:
    """Joins both tables on the study id. They are published in one order, so rows rarely wait; any order works."""
    waiting: dict[str, tuple[Labels, str | None]] = {}
    for line, row in wanted:
        study = whole(row["study_id"])
        while study not in waiting:
            following = next(measured, None)
            if following is None:
                break
            waiting[following[0]] = following[1]
        labels, report = waiting.pop(study, (Labels(), None))
        yield line, row, labels, report


def open_mimic(name: str, root: Path) -> FileDataset:
    """Opens a folder in MIMIC-IV-ECG's layout.

    The split is that of `split_manifest.json` in the folder where there is one, else a hash of the subject id (80 %
    train, 10 % valid, 10 % test). Age and sex come from MIMIC-IV's `patients.csv`, if it lies in the folder.
    """

    def load() -> Iterator[Entry]:
        path = root / RECORDS
        manifest: Mapping[str, str] | None = None
        if (root / MANIFEST_NAME).is_file():
            manifest = read_manifest(root / MANIFEST_NAME).split_of
        patients = read_patients(root / PATIENTS) if (root / PATIENTS).is_file() else {}
        unknown = Patient(None, None, None)
        rows = read_rows(path, ["subject_id", "study_id", "path"])
        for line, row, labels, report in _join(rows, read_measurements(root / MEASUREMENTS)):
            subject, study = sys.intern(whole(row["subject_id"])), whole(row["study_id"])
            patient = patients.get(subject, unknown)
            age = patient.age_in(_year(row.get("ecg_time", "")))
            censored = age is not None and age > AGE_CENSORED
            yield Entry(
                record_id=study,
                patient_id=subject,
                source=name,
                path=below(root, row, "path", f"{path}:{line}"),
                labels=labels,
                split=hashed_split(subject) if manifest is None else manifest.get(study),
                report=report,
                age=float(CENSORED_AT) if censored else age,
                age_censored=censored,
                sex=patient.sex,
            )

    return FileDataset(name, root, load)


def unmapped(statements: Sequence[str]) -> list[str]:
    """The statements that no rule maps, in order and once each: what the labels do not know of."""
    return [statement for statement in dict.fromkeys(statements) if not statement_names(statement)]

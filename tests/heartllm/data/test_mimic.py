"""MIMIC-IV-ECG's layout: the join of its tables, machine statements, measured times, ages, splits."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data import Dataset, open_dataset
from heartllm.data.mimic import (
    MEASUREMENTS,
    PATIENTS,
    PLAUSIBLE,
    RECORDS,
    REPORT_COLUMNS,
    TIMES,
    axis_name,
    measured_intervals,
    statement_names,
    unmapped,
)
from heartllm.data.splits import hashed_split
from heartllm.errors import DataError

TIME = {"rr_interval": "1000", "p_onset": "40", "p_end": "140", "qrs_onset": "200", "qrs_end": "290", "t_end": "600"}
COLUMNS = ("subject_id", "study_id", "cart_id", "ecg_time", *REPORT_COLUMNS, "bandwidth", "filtering", *TIMES, "t_axis")


def write(path: Path, columns: tuple[str, ...], rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def record(study: int, subject: int = 10000032) -> dict[str, str]:
    path = f"files/p{str(subject)[:4]}/p{subject}/s{study}/{study}"
    return {
        "subject_id": str(subject),
        "study_id": str(study),
        "file_name": str(study),
        "ecg_time": "2180-07-23 08:44:00",
        "path": path,
    }


def measured(study: int, *statements: str, **times: str) -> dict[str, str]:
    reports = dict(zip(REPORT_COLUMNS, statements, strict=False))
    return {"subject_id": "10000032", "study_id": str(study), "qrs_axis": "13", **TIME, **reports, **times}


def site(tmp_path: Path, records: list[dict[str, str]], measurements: list[dict[str, str]]) -> Dataset:
    root = tmp_path / "mimic"
    write(root / RECORDS, ("subject_id", "study_id", "file_name", "ecg_time", "path"), records)
    write(root / MEASUREMENTS, COLUMNS, measurements)
    return open_dataset("mimic", tmp_path)


def test_a_study_becomes_an_entry(tmp_path: Path) -> None:
    dataset = site(tmp_path, [record(40689238)], [measured(40689238, "Sinus rhythm", "Possible anterior infarct.")])
    write(
        dataset.root / PATIENTS,
        ("subject_id", "gender", "anchor_age", "anchor_year"),
        [{"subject_id": "10000032", "gender": "F", "anchor_age": "52", "anchor_year": "2178"}],
    )
    entry = dataset.entries()[0]
    assert (entry.record_id, entry.patient_id, entry.source) == ("40689238", "10000032", "mimic")
    assert entry.path == dataset.root / "files/p1000/p10000032/s40689238/40689238"
    assert entry.report == "Sinus rhythm. Possible anterior infarct."
    assert entry.labels.statements == {"sinus rhythm": 100, "myocardial infarction in anterior leads": 50}
    assert entry.labels.heart_axis == "normal heart axis"
    assert entry.labels.intervals == {
        "rr interval": 1000,
        "p duration": 100,
        "pr interval": 160,
        "qrs duration": 90,
        "qt interval": 400,
        "qt corrected": 400,
    }
    assert entry.labels.noise is None  # the tables say nothing of it
    assert (entry.age, entry.sex, entry.split) == (54, "female", hashed_split("10000032"))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (3, 2, 1)])
def test_the_tables_may_be_in_different_orders(tmp_path: Path, order: tuple[int, ...]) -> None:
    statements = {1: "Sinus rhythm", 2: "Atrial fibrillation", 3: "Atrial flutter"}
    dataset = site(tmp_path, [record(n) for n in (1, 2, 3)], [measured(n, statements[n]) for n in order])
    assert [entry.report for entry in dataset.entries()] == [f"{text}." for text in statements.values()]


def test_a_study_without_measurements_is_not_labelled(tmp_path: Path) -> None:
    dataset = site(tmp_path, [record(1), record(2)], [measured(2, "Sinus rhythm")])
    first, second = dataset.entries()
    assert (first.labels.statements, first.report) == (None, None)
    assert second.labels.statements == {"sinus rhythm": 100}


def test_what_was_not_measured_is_not_labelled(tmp_path: Path) -> None:
    row = measured(1, "Atrial fibrillation", p_onset="29999", p_end="29999", qrs_axis="29999", rr_interval="")
    labels = site(tmp_path, [record(1)], [row]).entries()[0].labels
    assert labels.heart_axis is None
    assert labels.intervals == {"qrs duration": 90, "qt interval": 400}


def test_errors_name_file_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"machine_measurements\.csv:2: column 'qrs_end' holds 'x'"):
        site(tmp_path, [record(1)], [measured(1, qrs_end="x")]).entries()
    with pytest.raises(DataError, match=r"record_list\.csv:2: column 'path'"):
        site(tmp_path, [record(1) | {"path": "../1"}], [measured(1)]).entries()
    (tmp_path / "mimic" / MEASUREMENTS).unlink()
    with pytest.raises(DataError, match=r"machine_measurements\.csv: the table does not exist"):
        open_dataset("mimic", tmp_path).entries()


def test_older_than_89_is_ninety_or_older(tmp_path: Path) -> None:
    dataset = site(tmp_path, [record(1)], [measured(1)])
    row = {"subject_id": "10000032", "gender": "M", "anchor_age": "91"}
    write(dataset.root / PATIENTS, ("subject_id", "gender", "anchor_age"), [row])
    entry = dataset.entries()[0]
    assert (entry.age, entry.age_censored) == (90, True)


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("Sinus rhythm with PVC(s)", {"sinus rhythm": 100, "ventricular premature complex": 100}),
        ("Sinus rhythm with borderline 1st degree A-V block", {"sinus rhythm": 100, "first degree av block": 50}),
        ("Left axis deviation - possible left anterior fascicular block", {"left anterior fascicular block": 50}),
        ("Incomplete RBBB", {"incomplete right bundle branch block": 100}),
        ("LVH with secondary repolarization abnormality", {"left ventricular hypertrophy": 100}),
        (
            "Left ventricular hypertrophy by voltage only",
            {"voltage criteria (qrs) for left ventricular hypertrophy": 100},
        ),
        ("Inferior/lateral infarct - age undetermined", {"myocardial infarction in inferolateral leads": 100}),
        ("Inferior infarct - age undetermined", {"myocardial infarction in inferior leads": 100}),
        ("Anteroseptal infarct, old", {"myocardial infarction in anteroseptal leads": 100}),
        ("Repol abnrm suggests ischemia, anterolateral", {"ischemic in anterolateral leads": 50}),
        ("Lateral ST changes are nonspecific", {"non-specific st changes": 100}),
        ("Normal ECG", {"normal ecg": 100}),
        ("Abnormal ECG", {}),
        ("Otherwise normal ECG", {}),
        ("No evidence of inferior infarct", {}),
        ("Old inferior MI cannot be excluded", {"myocardial infarction in inferior leads": 50}),
        ("Cannot exclude anterior infarct", {"myocardial infarction in anterior leads": 50}),
        ("No ST elevation", {}),
        ("No acute ischemic changes", {}),
        ("Since previous tracing atrial fibrillation is no longer present", {}),
    ],
)
def test_machine_statements(statement: str, names: dict[str, float]) -> None:
    assert dict(statement_names(statement)) == names
    assert dict(statement_names(statement.upper())) == names


def test_statements_that_no_rule_maps_can_be_listed() -> None:
    assert unmapped(["Sinus rhythm", "Abnormal ECG", "Poor R wave progression", "Abnormal ECG"]) == [
        "Abnormal ECG",
        "Poor R wave progression",
    ]


@pytest.mark.parametrize(
    ("degrees", "name"),
    [
        (0, "normal heart axis"),
        (-30, "normal heart axis"),
        (90, "normal heart axis"),
        (-31, "left axis deviation"),
        (330.5, "normal heart axis"),
        (300, "left axis deviation"),
        (91, "right axis deviation"),
        (-91, "extreme axis deviation"),
        (200, "extreme axis deviation"),
        (29999, None),
        (None, None),
    ],
)
def test_axes(degrees: float | None, name: str | None) -> None:
    assert axis_name(degrees) == name


@given(st.fixed_dictionaries({column: st.none() | st.floats(-1e5, 1e5) for column in TIMES}))
def test_intervals_are_plausible_or_absent(times: dict[str, float | None]) -> None:
    for name, value in measured_intervals(times).items():
        assert PLAUSIBLE[name][0] <= value <= PLAUSIBLE[name][1]

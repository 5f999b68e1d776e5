"""TAB texts: what is known in plain words, and never an id or a date."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.records import Entry
from heartllm.data.reports import read_reports
from heartllm.data.tabular import features_from_background, features_text, patient_features

BACKGROUND = (
    "Patient Information: - Patient ID: 9496; - Age: {age}; - Sex: 1; - Height: nan; - Weight: 59; "
    "Recording Details: - Recording Date: 1984-11-15 12:49:10; - Nurse ID: 2; - Site ID: 0; - Device ID: CS-12   E."
)


def test_all_that_is_known() -> None:
    entry = Entry(
        "7701",
        "9988",
        "ptbxl",
        Path("x"),
        age=54,
        sex="female",
        height=170,
        weight=59,
        device="CS-12",
        site="33",
    )
    expected = "Age: 54 years. Sex: female. Height: 170 cm. Weight: 59 kg. Device: CS-12."
    assert patient_features(entry) == expected


def test_nothing_for_what_is_missing() -> None:
    assert patient_features(Entry("7701", "9988", "ptbxl", Path("x"))) == ""
    assert features_text(age=90, age_censored=True) == "Age: 90 years or older."


def test_the_authors_background_without_ids_and_dates() -> None:
    assert features_from_background(BACKGROUND.format(age=54)) == (
        "Age: 54 years. Sex: female. Weight: 59 kg. Device: CS-12 E."
    )
    assert features_from_background(BACKGROUND.format(age=300)).startswith("Age: 90 years or older.")
    assert features_from_background("Recording Details: - Recording Date: 2150-01-01.") == ""


@given(st.text())
def test_no_background_fails(text: str) -> None:
    assert isinstance(features_from_background(text), str)


@pytest.mark.real_data
def test_real_backgrounds_give_what_the_tables_give(data_root: Path) -> None:
    from heartllm.data import open_dataset

    entries = {entry.record_id: entry for entry in open_dataset("ptbxl", data_root).entries()}
    rows = read_reports(data_root / "reports" / "ptbxl")
    assert len(rows) == 1037
    for row in rows:
        entry, theirs = entries[row.ecg_id], features_from_background(row.background or "")
        if entry.age is None:  # the 1.0.1 table lacks some ages that later releases write as 300
            theirs = theirs.removeprefix("Age: 90 years or older. ")
        assert theirs == patient_features(entry), row.ecg_id

"""The tables of names: complete, consistent with each other, and with the published files where they are present."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from heartllm.data.cinc import snomed_table
from heartllm.data.mimic import _rules
from heartllm.data.ptbxl import AXES
from heartllm.data.statements import BY_NAME, STATEMENTS, SUPERCLASSES, read_table, superclasses


def test_every_statement_has_a_kind_and_a_name_of_its_own() -> None:
    assert len(STATEMENTS) == len(BY_NAME) == 71
    assert all(s.diagnostic or s.form or s.rhythm for s in STATEMENTS.values())
    assert {s.superclass for s in STATEMENTS.values() if s.superclass} == set(SUPERCLASSES)
    assert all(s.diagnostic for s in STATEMENTS.values() if s.superclass or s.subclass)


def test_superclasses_of_names() -> None:
    assert superclasses(["myocardial infarction in inferior leads", "sinus rhythm", "normal ecg", "unheard of"]) == {
        "myocardial infarction"
    }


def test_other_sites_use_the_same_names() -> None:
    findings = snomed_table().values()
    assert {f.name for f in findings if f.kind == "statement"} <= set(BY_NAME)
    assert {f.name for f in findings if f.kind == "axis"} <= set(AXES.values())
    assert {f.kind for f in findings} == {"statement", "axis"}
    assert len(snomed_table()) == len(read_table("snomed.csv"))  # no code twice
    assert {rule.name for rule in _rules()} <= set(BY_NAME)


@pytest.mark.real_data
def test_the_table_fits_ptbxl_and_ecg_qa(data_root: Path) -> None:
    with (data_root / "ptbxl" / "scp_statements.csv").open(newline="") as file:
        published = {row[""]: row for row in csv.DictReader(file)}
    assert set(published) == set(STATEMENTS)
    for code, row in published.items():
        statement = STATEMENTS[code]
        assert (bool(row["diagnostic"]), bool(row["form"]), bool(row["rhythm"])) == (
            statement.diagnostic,
            statement.form,
            statement.rhythm,
        )
        assert (row["diagnostic_subclass"] or None) == statement.subclass
    with (data_root / "ecgqa" / "ptbxl" / "answers.csv").open(newline="") as file:
        answers = [row["class"] for row in csv.DictReader(file)]
    # Rows 8 to 66 of ECG-QA's answers are its statements; what stands before and after are other things.
    assert set(answers[8:67]) <= set(BY_NAME)
    assert set(SUPERCLASSES) <= set(answers[:8])

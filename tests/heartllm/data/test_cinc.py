"""CinC sites: header comments, SNOMED CT codes, and the real recordings of three of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data import open_dataset
from heartllm.data.cinc import count_codes, labels_of, parse_age, snomed_table
from heartllm.data.statements import STATEMENTS, read_table
from heartllm.data.templates import POOLS
from heartllm.errors import DataError

HEADER = "{name} 12 500 5000\n{name}.mat 16x1+24 1000.0(0)/mV 16 0 39 14497 0 I\n{comments}"


def write(root: Path, name: str, comments: str = "") -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / f"{name}.hea").write_text(HEADER.format(name=name, comments=comments))


def test_a_header_becomes_an_entry(tmp_path: Path) -> None:
    root = tmp_path / "other_sites" / "georgia"
    write(root / "g1", "E00001", "#Age: 61\n# Sex: Male\n# Dx: 164889003,39732003,999999\n")
    write(root, "E00002", "# Age: NaN\n# Sex: Unknown\n# Dx: Unknown\n")
    first, second = open_dataset("georgia", tmp_path).entries()
    assert (first.record_id, first.patient_id, first.split) == ("E00001", "E00001", "test")
    assert first.path == root / "g1" / "E00001"
    assert (first.age, first.sex) == (61, "male")
    assert first.labels.statements == {"atrial fibrillation": 0}
    assert first.labels.heart_axis == "left axis deviation"
    assert (second.age, second.sex, second.labels.statements) == (None, None, None)


def test_an_empty_site_and_doubled_names_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "other_sites" / "cpsc2018"
    root.mkdir(parents=True)
    with pytest.raises(DataError, match="holds no recordings"):
        open_dataset("cpsc2018", tmp_path).entries()
    write(root, "A0001")
    write(root / "more", "A0001")
    with pytest.raises(DataError, match="A0001 lies here twice"):
        open_dataset("cpsc2018", tmp_path).entries()


def test_contradicting_axes_are_not_labelled() -> None:
    assert labels_of("39732003,47665007").heart_axis is None


@given(st.lists(st.sampled_from(sorted(snomed_table()))), st.lists(st.integers(0, 10**6).map(str)))
def test_known_codes_are_labelled_and_unknown_ones_ignored(known: list[str], unknown: list[str]) -> None:
    labels = labels_of(",".join([*known, *(code for code in unknown if code not in snomed_table())]))
    expected = {snomed_table()[code].name for code in known if snomed_table()[code].kind == "statement"}
    assert set(labels.statements or {}) == expected


def verhoeff(number: str) -> bool:
    """Whether a number ends in its check digit, as every SNOMED CT identifier does (Verhoeff 1969)."""
    inverse = {0: 0, 1: 4, 2: 3, 3: 2, 4: 1, 5: 5, 6: 6, 7: 7, 8: 8, 9: 9}

    def times(a: int, b: int) -> int:  # of the dihedral group of order 10
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5
        return 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5

    turn, check = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4], 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit)
        for _ in range(place % 8):
            value = turn[value]
        check = times(check, value)
    return inverse[check] == 0


def test_every_code_is_a_snomed_identifier_and_every_name_ecgqas() -> None:
    assert verhoeff("2363")  # the textbook's example
    assert not verhoeff("2364")
    rows = read_table("snomed.csv")
    assert len({row["snomed"] for row in rows}) == len(rows)
    assert [row["snomed"] for row in rows if not verhoeff(row["snomed"])] == []
    names = {"statement": {part.name for part in STATEMENTS.values()}, "axis": set(POOLS["axis"])}
    assert [row["name"] for row in rows if row["name"] not in names[row["kind"]]] == []


def test_codes_are_counted_by_recording(tmp_path: Path) -> None:
    write(tmp_path / "g1", "E1", "# Dx: 164889003,164889003,1\n")
    write(tmp_path, "E2", "# Dx: 164889003\n")
    assert count_codes(tmp_path) == {"164889003": 2, "1": 1}


@pytest.mark.parametrize(("text", "age"), [("61", 61), ("NaN", None), ("", None), ("-1", None), ("300", None)])
def test_ages(text: str, age: float | None) -> None:
    assert parse_age(text) == age


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "count"), [("georgia", 10), ("chapman-ningbo", 10), ("cpsc2018", 5)])
def test_real_sites(data_root: Path, name: str, count: int) -> None:
    dataset = open_dataset(name, data_root)
    entries = dataset.entries("test")
    assert len(entries) == count
    assert all(entry.labels.statements and entry.age and entry.sex for entry in entries)
    assert dataset.read(entries[0]).signal.shape == (12, 5000)

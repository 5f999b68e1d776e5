"""PTB-XL's layout: columns to labels, splits, reports; the real recordings' counts."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data import Dataset, open_dataset
from heartllm.data.ptbxl import COLUMNS, parse_codes, parse_extra_beats, parse_leads, read_split_lists
from heartllm.data.splits import MANIFEST_NAME, make_manifest, write_manifest
from heartllm.data.statements import STATEMENTS
from heartllm.ecg.recording import LEADS
from heartllm.errors import DataError, UsageError

ROW = {
    "ecg_id": "1",
    "patient_id": "15709.0",
    "age": "56.0",
    "sex": "1",
    "weight": "63.0",
    "device": "CS-12   E",
    "site": "0.0",
    "report": "sinusrhythmus",
    "scp_codes": "{'NORM': 100.0, 'LVOLT': 0.0, 'SR': 0.0}",
    "heart_axis": "MID",
    "static_noise": " , I-V1,  ",
    "strat_fold": "3",
    "filename_hr": "records500/00000/00001_hr",
}


def write_table(root: Path, rows: list[dict[str, str]], columns: tuple[str, ...] = COLUMNS) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def opened(tmp_path: Path, *changes: dict[str, str], name: str = "ptbxl") -> Dataset:
    write_table(tmp_path / name, [ROW | change for change in changes])
    return open_dataset(name, tmp_path)


def test_a_row_becomes_an_entry(tmp_path: Path) -> None:
    entry = opened(tmp_path, {}).entries()[0]
    assert (entry.record_id, entry.patient_id, entry.source) == ("1", "15709", "ptbxl")
    assert entry.path == tmp_path / "ptbxl" / "records500/00000/00001_hr"
    assert (entry.age, entry.age_censored, entry.sex, entry.height, entry.weight) == (56, False, "female", None, 63)
    assert (entry.device, entry.site, entry.report) == ("CS-12 E", "0", "sinusrhythmus")
    labels = entry.labels
    assert labels.statements == {
        "normal ecg": 100,
        "low qrs voltages in the frontal and horizontal leads": 0,
        "sinus rhythm": 0,
    }
    assert labels.noise is not None
    assert labels.noise["static noise"] == frozenset(LEADS[:7])
    assert labels.noise["burst noise"] == frozenset()
    assert labels.heart_axis == "normal heart axis"
    assert labels.infarction_stages == frozenset() == labels.extra_systoles
    assert labels.intervals is None


def test_column_order_and_further_columns_do_not_matter(tmp_path: Path) -> None:
    expected = opened(tmp_path, {}).entries()
    write_table(tmp_path / "ptbxl", [ROW | {"more": "x"}], ("more", *reversed(COLUMNS)))
    assert open_dataset("ptbxl", tmp_path).entries() == expected


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    write_table(tmp_path / "ptbxl", [ROW], tuple(name for name in COLUMNS if name != column))
    with pytest.raises(DataError, match=rf"ptbxl_database\.csv: .*{column}"):
        open_dataset("ptbxl", tmp_path).entries()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"age": "old"}, "'age' holds 'old'"),
        ({"scp_codes": "__import__('os').system('false')"}, "scp_codes"),
        ({"scp_codes": "{'NORM': "}, "scp_codes"),
        ({"scp_codes": "{'XYZ': 1.0}"}, "unknown code 'XYZ'"),
        ({"scp_codes": "{'NORM': 101.0}"}, "likelihood 101"),
        ({"filename_hr": "../../etc/passwd"}, "filename_hr"),
        ({"filename_hr": "/etc/passwd"}, "filename_hr"),
    ],
)
def test_a_wrong_cell_names_file_line_and_column(tmp_path: Path, change: dict[str, str], named: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(tmp_path, {}, change | {"ecg_id": "2"}).entries()
    assert named in str(caught.value)
    assert "ptbxl_database.csv:3" in str(caught.value)


@pytest.mark.parametrize("age", ["300.0", "90", "94.0"])
def test_an_age_over_89_is_ninety_or_older(tmp_path: Path, age: str) -> None:
    entry = opened(tmp_path, {"age": age}).entries()[0]
    assert (entry.age, entry.age_censored) == (90, True)


def test_stages_and_axes_under_ecg_qa_names(tmp_path: Path) -> None:
    change = {"infarction_stadium1": "Stadium II-III", "infarction_stadium2": "Stadium I", "heart_axis": "ALAD"}
    labels = opened(tmp_path, change).entries()[0].labels
    assert labels.infarction_stages == {
        "middle stage of myocardial infarction",
        "early stage of myocardial infarction",
    }
    assert labels.heart_axis == "left axis deviation"
    for code in ("LAD", "AXL", "AXR", ""):  # ambiguous, or no class of ECG-QA
        assert opened(tmp_path, {"heart_axis": code}).entries()[0].labels.heart_axis is None


def test_folds_decide_the_split_of_a_synthetic_site(tmp_path: Path) -> None:
    rows = [{"ecg_id": str(fold), "strat_fold": str(fold)} for fold in range(1, 11)]
    splits = [entry.split for entry in opened(tmp_path, *rows, name="synthetic-a").entries()]
    assert splits == ["train"] * 8 + ["valid", "test"]


def test_intervals_beside_the_table_become_labels(tmp_path: Path) -> None:
    dataset = opened(tmp_path, {}, name="synthetic-a")
    (dataset.root / "intervals.csv").write_text("ecg_id,pr interval,qrs duration\n1,160,\n")
    assert dataset.entries()[0].labels.intervals == {"pr interval": 160}


def write_lists(folder: Path, **ids: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, members in ids.items():
        (folder / f"{split}_ecgs.tsv").write_text("".join(f"{n}\t{i}\n" for n, i in enumerate(members)))


def test_ecg_qa_lists_decide_the_split_of_ptbxl_and_the_patient_that_of_others(tmp_path: Path) -> None:
    write_lists(tmp_path / "ecgqa" / "ptbxl", train=[1], valid=[2], test=[3])
    rows = [{"ecg_id": str(n), "patient_id": str(10 * n)} for n in (1, 2, 3)]
    rows += [{"ecg_id": "4", "patient_id": "30"}, {"ecg_id": "5", "patient_id": "50"}]
    splits = [entry.split for entry in opened(tmp_path, *rows).entries()]
    assert splits == ["train", "valid", "test", "test", "train"]


def test_an_ecg_on_two_lists_is_refused(tmp_path: Path) -> None:
    write_lists(tmp_path, train=[1, 2], test=[2])
    with pytest.raises(DataError, match="ECG 2 is in the splits train and test"):
        read_split_lists(tmp_path)


def test_a_manifest_comes_before_everything_else(tmp_path: Path) -> None:
    dataset = opened(tmp_path, {}, name="synthetic-a")
    manifest = make_manifest("synthetic-a", dataset.entries())
    moved = type(manifest)(manifest.dataset, {"1": "test"}, {"train": 0, "valid": 0, "test": 1})
    write_manifest(moved, dataset.root / MANIFEST_NAME)
    assert open_dataset("synthetic-a", tmp_path).entries()[0].split == "test"


@pytest.mark.parametrize(
    ("cell", "leads"),
    [
        ("", ""),
        (" , ", ""),
        (" , V6", "V6"),
        ("v6,  ", "V6"),
        (" , I-AVF,V5 ", "I II III aVR aVL aVF V5"),
        (" , I --AVL,  ", "I II III aVR aVL"),
        (" , V4 - V6", "V4 V5 V6"),
        (" , v1,6", "V1 V6"),
        (" , v1-6", "V1 V2 V3 V4 V5 V6"),
        ("v2,3,  ", "V2 V3"),
        (" , II-AVL,AVF", "II III aVR aVL aVF"),
        (" , alles, noisy recording,", " ".join(LEADS)),
        (" , V5 stark!", "V5"),
        ("I,II,AVL-V2", "I II aVL aVF V1 V2"),
    ],
)
def test_noise_cells(cell: str, leads: str) -> None:
    assert parse_leads(cell) == frozenset(leads.split())


@pytest.mark.parametrize("cell", [" , stark", "leicht,  ,  ", " , drift", "V6-V1", "V9", "I-II-III", "6"])
def test_noise_without_readable_leads_is_not_labelled(tmp_path: Path, cell: str) -> None:
    assert parse_leads(cell) is None
    noise = opened(tmp_path, {"static_noise": cell}).entries()[0].labels.noise
    assert noise is not None
    assert "static noise" not in noise
    assert len(noise) == 3


@given(st.sets(st.sampled_from(LEADS)), st.sampled_from([",", " , ", ", "]), st.booleans())
def test_any_list_of_leads_is_read_back(leads: set[str], separator: str, upper: bool) -> None:
    cell = separator.join(sorted(leads))
    assert parse_leads(cell.upper() if upper else cell) == frozenset(leads)


@given(st.text(max_size=30))
def test_no_noise_cell_fails(cell: str) -> None:
    leads = parse_leads(cell)
    assert leads is None or leads <= frozenset(LEADS)


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("", set()),
        ("1ES", {"extrasystoles"}),
        ("4ES(2Typen)", {"extrasystoles"}),
        ("VES,SVES1,alles", {"ventricular extrasystoles", "supraventricular extrasystoles"}),
        ("1ES,SVES", {"extrasystoles", "supraventricular extrasystoles"}),
        ("7,V5", {"extrasystoles"}),
    ],
)
def test_extra_beats(cell: str, names: set[str]) -> None:
    assert parse_extra_beats(cell) == names


@given(st.dictionaries(st.sampled_from(sorted(STATEMENTS)), st.sampled_from([0.0, 15.0, 50.0, 100.0])))
def test_codes_are_read_back_under_ecg_qa_names(codes: dict[str, float]) -> None:
    assert parse_codes(repr(codes), "here") == {STATEMENTS[code].name: value for code, value in codes.items()}


def test_unknown_names_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'ptbxl'"):
        open_dataset("ptblx", tmp_path)
    with pytest.raises(UsageError, match="Did you mean 'synthetic-a'"):
        open_dataset("synthetic_a", tmp_path)
    with pytest.raises(DataError, match="HEARTLLM_DATA"):
        open_dataset("mimic", tmp_path)
    with pytest.raises(UsageError, match=r"unknown split 'tets'.*Did you mean 'test'"):
        opened(tmp_path, {}).entries("tets")


@pytest.mark.real_data
def test_the_real_recordings(data_root: Path) -> None:
    dataset = open_dataset("ptbxl", data_root)
    entries = dataset.entries()
    assert len(entries) == 1978
    assert Counter(entry.split for entry in entries) == {"train": 1593, "valid": 160, "test": 225}
    assert make_manifest("ptbxl", entries).patients == {"train": 1385, "valid": 143, "test": 198}  # none is shared
    assert sum(entry.report is not None for entry in entries) == 840 + 78 + 119
    names = Counter(name for entry in entries for name in entry.labels.statements or {})
    assert (names["sinus rhythm"], names["normal ecg"], names["atrial fibrillation"]) == (
        1499,
        866,
        142,
    )  # as grep counts them
    assert dataset.read(entries[0]).signal.shape == (12, 5000)

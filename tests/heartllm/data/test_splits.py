"""Split manifests, leakage, and passes that survive bad recordings."""

from __future__ import annotations

import json
import pickle
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.dataset import FileDataset, data_root_from
from heartllm.data.dataset_check import BadRecords, check_dataset, read_all
from heartllm.data.dataset_leakage import ids_in, overlaps, published_groups, split_groups
from heartllm.data.records import SPLITS, Entry
from heartllm.data.splits import check_patients, hash_ids, hashed_split, make_manifest, read_manifest, write_manifest
from heartllm.ecg.recording import LEADS
from heartllm.errors import DataError, UsageError


def entry(record: str, patient: str = "", split: str | None = "train", path: Path = Path("x")) -> Entry:
    return Entry(record, patient or f"p{record}", "site", path, split=split)


def test_a_manifest_is_read_back_and_does_not_depend_on_order(tmp_path: Path) -> None:
    entries = [
        entry("1", "a"),
        entry("2", "a"),
        entry("3", split="valid"),
        entry("4", split="test"),
        entry("5", split=None),
    ]
    manifest = make_manifest("site", entries)
    write_manifest(manifest, tmp_path / "m.json")
    again = read_manifest(tmp_path / "m.json")
    assert again == manifest == make_manifest("site", entries[::-1])
    assert again.patients == {"train": 1, "valid": 1, "test": 1}
    assert again.ids("train") == ["1", "2"]
    assert again.hashes()["train"] == hash_ids(["2", "1"])


def test_a_patient_in_two_splits_is_refused_with_both_recordings() -> None:
    with pytest.raises(DataError, match="patient a is in two splits: recording 1 in train, recording 2 in test"):
        make_manifest("site", [entry("1", "a"), entry("2", "a", "test")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document["splits"]["train"]["ids"].append("9"), "do not fit their hash"),
        (lambda document: document.update(version=2), "version 2"),
        (lambda document: document["splits"].update(dev=document["splits"].pop("test")), "unknown split 'dev'"),
        (lambda document: document["splits"].update(test=document["splits"]["train"]), "in the splits train and test"),
        (lambda document: document.pop("splits"), "no split manifest"),
    ],
)
def test_an_altered_manifest_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "m.json"
    write_manifest(make_manifest("site", [entry("1")]), path)
    document = json.loads(path.read_text())
    assert callable(change)
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        read_manifest(path)


@given(st.lists(st.text(), unique=True))
def test_hashes_ignore_order(ids: list[str]) -> None:
    assert hash_ids(ids) == hash_ids(random.sample(ids, len(ids)))


def test_hashed_splits_are_stable_and_near_80_10_10() -> None:
    counts = Counter(hashed_split(str(number)) for number in range(10_000))
    assert counts["train"] == pytest.approx(8000, abs=150)
    assert counts["test"] == pytest.approx(1000, abs=120)
    assert [hashed_split(str(n)) for n in (10000032, 10000117, 10000248, 10000285)] == [
        hashed_split(str(n)) for n in (10000032, 10000117, 10000248, 10000285)
    ]
    assert hashed_split("10000032") in SPLITS


def test_leakage_between_tasks() -> None:
    groups = {"qa/train": ["1", "2"], "qa/test": ["3", "4"], "report/train": ["3", "2"], "report/test": ["5"]}
    patients = {"1": "a", "2": "b", "3": "c", "4": "d", "5": "a"}
    found = {(o.first, o.second): o for o in overlaps(groups, patients)}
    assert found["qa/test", "report/train"].leak
    assert found["qa/test", "report/train"].examples == ("3",)
    assert (found["qa/train", "report/test"].records, found["qa/train", "report/test"].patients) == (0, 1)
    assert found["qa/train", "report/test"].leak  # another recording of the same patient
    assert not found["qa/train", "qa/test"].leak
    assert ("qa/train", "report/train") not in found  # both are learnt from
    with pytest.raises(UsageError, match="Did you mean 'test'"):
        overlaps({"qa/tset": [], "qa/train": []})


def test_ids_in_files(tmp_path: Path) -> None:
    (tmp_path / "list.tsv").write_text("0\t7\n1\t8\n")
    (tmp_path / "r.json").write_text(json.dumps([{"ecg_id": 9, "report": "x"}]))
    assert (ids_in(tmp_path / "list.tsv"), ids_in(tmp_path / "r.json")) == ({"7", "8"}, {"9"})


@pytest.mark.real_data
def test_nothing_leaks_in_the_real_files(data_root: Path) -> None:
    from heartllm.data import open_dataset

    entries = open_dataset("ptbxl", data_root).entries()
    groups = split_groups(entries) | published_groups(data_root, "ptbxl")
    found = overlaps(groups, {entry.record_id: entry.patient_id for entry in entries})
    assert len(groups) == 15
    assert not [overlap for overlap in found if overlap.leak]
    assert check_patients(entries)["test"]


def site(tmp_path: Path, recordings: int, bad: int) -> FileDataset:
    """Recordings in npy files, the last `bad` of them cut short."""
    entries = []
    for number in range(recordings):
        path = tmp_path / f"{number}.npy"
        np.save(path, np.random.default_rng(number).normal(0, 0.5, (12, 5000)).astype(np.float32))
        if number >= recordings - bad:
            path.write_bytes(path.read_bytes()[:1000])
        entries.append(entry(str(number), path=path))
    return FileDataset("site", tmp_path, lambda: iter(entries))


OPTIONS = {"sampling_rate": 500.0, "units": "mV", "lead_names": list(LEADS)}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_pass_goes_on_over_bad_recordings(tmp_path: Path, workers: int) -> None:
    dataset = site(tmp_path, recordings=20, bad=2)
    bad = BadRecords(allowed=0.1)
    read = [e.record_id for e, _ in read_all(dataset, dataset.entries(), bad=bad, workers=workers, **OPTIONS)]
    assert read == [str(number) for number in range(18)]
    assert [record.record_id for record in bad.records] == ["18", "19"]
    assert bad.share == 0.1


def test_a_pass_fails_past_the_stated_share(tmp_path: Path) -> None:
    dataset = site(tmp_path, recordings=20, bad=2)
    with pytest.raises(DataError, match=r"2 of 20 recordings cannot be read, over 5\.0%") as caught:
        list(read_all(dataset, dataset.entries(), max_bad_share=0.05, **OPTIONS))
    assert "(18: " in str(caught.value)
    with pytest.raises(UsageError, match="max_bad_share"):
        BadRecords(allowed=2)


def test_checking_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = site(tmp_path, recordings=10, bad=1)
    original = FileDataset.read
    monkeypatch.setattr(FileDataset, "read", lambda self, e, **o: original(self, e, **OPTIONS, **o))
    result = check_dataset(dataset, max_bad_share=0.2)
    assert (result.entries, result.patients, len(result.bad.records)) == (10, 10, 1)
    result.bad.check(dataset.root)
    with pytest.raises(DataError, match="1 of 10"):
        check_dataset(dataset, max_bad_share=0.05).bad.check(dataset.root)
    doubled = FileDataset("site", tmp_path, lambda: iter([entry("1"), entry("1")]))
    with pytest.raises(DataError, match="id 1 occurs more than once"):
        check_dataset(doubled)


def test_entries_are_copies_and_travel_between_processes(tmp_path: Path) -> None:
    dataset = site(tmp_path, recordings=2, bad=0)
    dataset.entries().clear()
    assert len(dataset.entries("train")) == 2
    assert dataset.entries("test") == []
    one = dataset.entries()[0]
    assert pickle.loads(pickle.dumps(one)) == one == replace(one)


def test_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEARTLLM_DATA", raising=False)
    with pytest.raises(UsageError, match="HEARTLLM_DATA"):
        data_root_from(None)
    monkeypatch.setenv("HEARTLLM_DATA", str(tmp_path))
    assert data_root_from(None) == tmp_path
    with pytest.raises(DataError, match="does not exist"):
        data_root_from(tmp_path / "nothing")

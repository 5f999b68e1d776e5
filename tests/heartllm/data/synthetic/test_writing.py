"""The sites on disk: readable by others, the same for any number of workers, safe to interrupt."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.data.dataset import open_dataset
from heartllm.data.mimic import statement_names
from heartllm.data.statements import STATEMENTS as KNOWN
from heartllm.data.synthetic import machine_b, simulate, statements, write_site, writing
from heartllm.data.synthetic.cases import INFARCTIONS, draw_case
from heartllm.data.synthetic.simulation import draw, patient_number
from heartllm.errors import DataError, UsageError

COUNT, SEED = 36, 9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hospitals")
    for site in "ab":
        write_site(site, place, recordings=COUNT, seed=SEED, workers=1)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("site", ["a", "b"])
def test_wfdb_reads_what_was_drawn(site: str, root: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    dataset = open_dataset(f"synthetic-{site}", root)
    for index, entry in list(enumerate(dataset.entries()))[:6]:
        record = wfdb.rdrecord(str(entry.path), physical=False)
        expected, truth = simulate(SEED, index, site)
        by_name = {name.upper(): record.d_signal[:, place] for place, name in enumerate(record.sig_name)}
        for place, name in enumerate(("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V6")):
            row = place if place < 7 else 11
            assert (by_name[name] == truth.digital[row]).all()
        sums = record.d_signal.astype(np.int64).sum(0) % 65536
        assert [checksum % 65536 for checksum in record.checksum] == sums.tolist()
        assert dataset.read(entry).signal == pytest.approx(expected.signal, abs=1e-5)


def test_site_b_stores_avf_before_avl(root: Path) -> None:
    header = next((root / "synthetic-b" / "files").rglob("*.hea")).read_text().splitlines()
    assert [line.split()[-1] for line in header[1:]][3:6] == ["aVR", "aVF", "aVL"]


def test_labels_come_back_as_they_were_drawn(root: Path) -> None:
    for index, entry in enumerate(open_dataset("synthetic-a", root).entries()):
        truth = draw(SEED, index, "a")
        assert entry.labels.statements == {KNOWN[code].name: value for code, value in truth.scp.items()}
        noise = {kind: set(leads) for kind, leads in (entry.labels.noise or {}).items() if leads}
        assert noise == {kind: set(leads) for kind, leads in truth.noise.leads.items()}
        assert entry.labels.heart_axis is not None
        assert entry.labels.intervals is not None
        assert entry.labels.intervals["qrs duration"] == truth.intervals.qrs
        assert ("pr interval" in entry.labels.intervals) == (truth.intervals.pr is not None)
        assert bool(entry.labels.extra_systoles) == (truth.extra_beats is not None)
        assert entry.report is not None
        assert entry.report == entry.report.lower()


def test_site_b_says_what_was_drawn_in_statements_that_the_reader_knows(root: Path) -> None:
    for index, entry in enumerate(open_dataset("synthetic-b", root).entries()):
        truth = draw(SEED, index, "b")
        said = entry.labels.statements or {}
        for code in truth.scp.keys() & machine_b.STATEMENTS.keys() - {"NDT", "EL"}:
            assert KNOWN[code].name in said
        assert entry.labels.intervals is not None
        assert entry.labels.intervals["qt interval"] == truth.intervals.qt


@pytest.mark.parametrize("code", sorted(machine_b.STATEMENTS.keys() - {"NDT", "EL"}))
def test_each_machine_statement_maps_to_its_finding(code: str) -> None:
    for text in machine_b.STATEMENTS[code]:
        assert dict(statement_names(text)).get(KNOWN[code].name) == 100.0
        assert dict(statement_names(f"Possible {text[0].lower()}{text[1:]}")).get(KNOWN[code].name) == 50.0


@pytest.mark.parametrize("code", [code for code in INFARCTIONS if code != "IPLMI"])
def test_each_infarct_statement_maps_to_its_territory(code: str) -> None:
    names = dict(statement_names(machine_b.infarct_statement(code, "unknown")))
    assert names == {KNOWN[code].name: 100.0}


def test_statement_table_agrees_with_the_published_groups() -> None:
    for code, (_, groups, *_rest) in statements.STATEMENTS.items():
        known = KNOWN[code]
        assert (known.diagnostic, known.rhythm) == ("d" in groups, "r" in groups)


@pytest.mark.parametrize("site", ["a", "b"])
def test_no_patient_is_in_two_splits(site: str, root: Path) -> None:
    splits: dict[str, set[str | None]] = {}
    for entry in open_dataset(f"synthetic-{site}", root).entries():
        splits.setdefault(entry.patient_id, set()).add(entry.split)
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) < COUNT  # some patients have two recordings


def test_files_do_not_depend_on_the_workers(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 20)
    write_site("a", tmp_path, recordings=COUNT, seed=SEED, workers=2)
    assert contents(tmp_path / "synthetic-a") == contents(root / "synthetic-a")


@pytest.mark.parametrize(("asked", "given"), [(None, "1"), ("3", "3")])
def test_workers_have_one_blas_thread_unless_the_user_asks_for_more(
    asked: str | None, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    seen = []

    class Pool(ThreadPoolExecutor):
        """Notes what a process started now would inherit."""

        def __init__(self, workers: int, mp_context: object) -> None:
            super().__init__(workers)

        def submit(self, *arguments: Any, **named: Any) -> Any:
            seen.append(os.environ["OMP_NUM_THREADS"])
            return super().submit(*arguments, **named)

    monkeypatch.setattr(writing, "CHUNK", 2)
    monkeypatch.setattr(writing, "ProcessPoolExecutor", Pool)
    write_site("a", tmp_path, recordings=4, seed=SEED, workers=2)
    assert seen == [given, given]
    assert os.environ.get("OMP_NUM_THREADS") == asked


def test_an_interrupted_site_is_unfinished_and_goes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "CHUNK", 12)

    def interrupt(done: int, _: int) -> None:
        if done == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_site("b", tmp_path, recordings=COUNT, seed=SEED, workers=1, progress=interrupt)
    folder = tmp_path / "synthetic-b"
    assert not (folder / "complete.json").exists()
    assert not (folder / "record_list.csv").exists()
    with pytest.raises(DataError, match="another synthetic site"):
        write_site("b", tmp_path, recordings=COUNT, seed=SEED + 1)
    steps: list[int] = []
    write_site("b", tmp_path, recordings=COUNT, seed=SEED, workers=1, progress=lambda done, _: steps.append(done))
    assert steps == [36]
    assert contents(folder) == contents(root / "synthetic-b")
    before = (folder / "complete.json").stat().st_mtime_ns
    assert write_site("b", tmp_path, recordings=COUNT, seed=SEED) == folder
    assert (folder / "complete.json").stat().st_mtime_ns == before


def test_foreign_folders_and_wrong_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "synthetic-a").mkdir()
    (tmp_path / "synthetic-a" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_site("a", tmp_path, recordings=1, seed=1)
    with pytest.raises(UsageError):
        write_site("c", tmp_path, recordings=1, seed=1)
    with pytest.raises(UsageError):
        write_site("b", tmp_path, recordings=0, seed=1)


def test_site_says_that_it_is_synthetic(root: Path) -> None:
    for site in "ab":
        assert (root / f"synthetic-{site}" / "README.txt").read_text().startswith("SYNTHETIC, not patients")
        complete = json.loads((root / f"synthetic-{site}" / "complete.json").read_text())
        assert (complete["recordings"], complete["seed"]) == (COUNT, SEED)
        with (root / f"synthetic-{site}" / "truth.csv").open() as stream:
            assert len(list(csv.DictReader(stream))) == COUNT


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    first, again, other = simulate(3, 17)[0], simulate(3, 17)[0], simulate(4, 17)[0]
    assert (first.signal == again.signal).all()
    assert not (first.signal == other.signal).all()
    assert not (first.signal == simulate(3, 17, "b")[0].signal).all()


def test_both_recordings_of_a_patient_come_from_one_chest() -> None:
    assert patient_number(5) == patient_number(6) != patient_number(7)
    first, second = draw(3, 5, "a"), draw(3, 6, "a")
    assert (first.patient.field == second.patient.field).all()
    assert first.patient.age == second.patient.age


def test_case_mix_has_enough_of_every_major_finding() -> None:
    found: Counter[str] = Counter()
    for number in range(4000):
        case = draw_case(np.random.default_rng([1, number]), np.random.default_rng([2, number]), "a")
        found.update([case.rhythm, case.ectopy, *case.findings])
        found["healthy"] += case.healthy
    share = {name: count / 4000 for name, count in found.items()}
    assert 0.28 < share["healthy"] < 0.42
    major = [
        "CRBBB",
        "CLBBB",
        "IRBBB",
        "LAFB",
        "LVH",
        "RVH",
        "IMI",
        "1AVB",
        "LAO/LAE",
        "RAO/RAE",
        "AFIB",
        "AFLT",
        "PACE",
        "SVTAC",
        "PVC",
        "PAC",
        "LNGQT",
    ]
    assert {name for name in major if share[name] < 0.025} == set()


def test_one_cause_of_the_other_site_at_a_time() -> None:
    """The same hearts under the other site's noise, or into its machines: nothing else differs."""
    for index in range(6):
        own = draw(SEED, index, "b")
        noise, machine = draw(SEED, index, "b", noise_of="a"), draw(SEED, index, "b", machine_of="a")
        for other in (noise, machine):
            assert (other.case, other.scp, other.rr_ms, other.axis_deg) == (own.case, own.scp, own.rr_ms, own.axis_deg)
            assert np.array_equal(other.onsets, own.onsets)
        assert noise.device == own.device
        assert machine.device.mains == 50.0
        assert own.device.mains == 60.0
        heart = draw(SEED, index, "b", noiseless=True).digital
        assert np.array_equal(draw(SEED, index, "b", noiseless=True, noise_of="a").digital, heart)
    kinds = [len(draw(SEED, index, "b").noise.leads) for index in range(60)]
    assert kinds != [len(draw(SEED, index, "b", noise_of="a").noise.leads) for index in range(60)]
    assert draw(SEED, 1, "b", noise_of="b").digital.tolist() == draw(SEED, 1, "b").digital.tolist()


def test_a_site_with_borrowed_noise_asks_the_same_questions(tmp_path: Path, root: Path) -> None:
    folder = write_site("b", tmp_path, recordings=COUNT, seed=SEED, workers=1, noise_of="a")
    assert "Its noise is that of site a." in (folder / "README.txt").read_text()
    own, other = open_dataset("synthetic-b", root).entries(), open_dataset("synthetic-b", tmp_path).entries()
    assert [(entry.record_id, entry.labels, entry.split) for entry in own] == [
        (entry.record_id, entry.labels, entry.split) for entry in other
    ]
    waves = [[one.path.with_suffix(".dat").read_bytes() for one in part] for part in (own, other)]
    assert 0 < sum(mine != theirs for mine, theirs in zip(*waves, strict=True)) < COUNT
    with pytest.raises(DataError, match="another synthetic site"):
        write_site("b", tmp_path, recordings=COUNT, seed=SEED, workers=1)
    with pytest.raises(DataError, match="another synthetic site"):
        write_site("b", tmp_path, recordings=COUNT, seed=SEED, workers=1, noise_of="a", machine_of="a")
    assert write_site("b", tmp_path, recordings=COUNT, seed=SEED, noise_of="a", machine_of="b") == folder
    with pytest.raises(UsageError, match="no synthetic site"):
        write_site("b", tmp_path / "x", recordings=1, seed=0, noise_of="c")

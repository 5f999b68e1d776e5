"""Attacks by headers and tables of recordings: paths that lead elsewhere, counts that no file keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import DataError, HeartLLMError

for package in ("scipy", "wfdb"):
    pytest.importorskip(package)

from heartllm.data.dataset import open_dataset  # noqa: E402
from heartllm.ecg import read_recording  # noqa: E402
from heartllm.ecg.recording import LEADS  # noqa: E402


def header(path: Path, *, name: str = "", samples: str = "5000", form: str = "16", signals: int = 12) -> None:
    """A header of twelve leads whose signal file is `name`."""
    file = name or f"{path.stem}.dat"
    lines = [f"{path.stem} {signals} 500 {samples}"]
    lines += [f"{file} {form} 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A good recording in another folder than the header that would like to read it."""
    (tmp_path / "outside").mkdir()
    rng = np.random.default_rng(0)
    (tmp_path / "outside" / "x.dat").write_bytes(rng.integers(-900, 900, (5000, 12), dtype=np.int16).tobytes())
    header(tmp_path / "outside" / "x.hea")
    assert read_recording(tmp_path / "outside" / "x", verify=False).signal.shape == (12, 5000)
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


@pytest.mark.parametrize(
    "name", ["../outside/x.dat", "/etc/passwd", "./../outside/x.dat", "..", "a/../../outside/x.dat"]
)
@pytest.mark.parametrize("form", ["16", "212", "516"])
def test_a_header_that_names_a_file_elsewhere(outside: Path, name: str, form: str) -> None:
    header(outside / "r.hea", name=name, form=form)
    with pytest.raises(DataError, match=r"lies in another folder|is missing"):
        read_recording(outside / "r", verify=False)


@pytest.mark.parametrize("name", ["../outside/x", "/outside/x", "a/b"])
def test_a_segment_elsewhere(outside: Path, name: str) -> None:
    (outside / "m.hea").write_text(f"m/2 12 500 10000\n{name} 5000\n{name} 5000\n")
    with pytest.raises(DataError, match="lies in another folder"):
        read_recording(outside / "m", verify=False)


def test_a_segment_whose_own_header_leads_elsewhere(outside: Path) -> None:
    header(outside / "s.hea", name="../outside/x.dat")
    (outside / "m.hea").write_text("m/2 12 500 10000\ns 5000\ns 5000\n")
    with pytest.raises(DataError, match="lies in another folder"):
        read_recording(outside / "m", verify=False)


def test_segments_within_segments(outside: Path) -> None:
    (outside / "m.hea").write_text("m/1 12 500 5000\nm 5000\n")
    with pytest.raises(DataError, match="a segment has segments"):
        read_recording(outside / "m", verify=False)


@pytest.mark.parametrize(
    ("samples", "form"),
    [
        *(
            (samples, form)
            for samples in ("1000000000000", "99999999999999999999999", "50000000")
            for form in ("16", "212")
        ),
        ("1000000000000", "516"),
        ("5000000", "212"),
        ("4000", "212x1000000000"),
        ("4000", "212:1000000000"),
        ("5000", "16+99999999999999"),
    ],
)
def test_counts_that_no_file_keeps(tmp_path: Path, samples: str, form: str, little_memory: Callable[[], None]) -> None:
    header(tmp_path / "r.hea", samples=samples, form=form)
    (tmp_path / "r.dat").write_bytes(bytes(1200))
    little_memory()
    with pytest.raises(DataError, match=r"more than a recording may have|is short|cannot be decoded"):
        read_recording(tmp_path / "r", verify=False)


@pytest.mark.parametrize(
    "text",
    [
        "m/1000000000 12 500 1000000000\n" + "s 1\n" * 10,
        "m/2 12 500 100000000000\ns 50000000000\ns 50000000000\n",
        "m/2 2000000000 500 1000\ns 500\ns 500\n",
        "r 2000000000 500 1000\nr.dat 16 1000/mV 16 0 0 0 0 I\n",
    ],
)
def test_counts_of_segments_and_signals(tmp_path: Path, text: str, little_memory: Callable[[], None]) -> None:
    header(tmp_path / "s.hea", samples="500")
    (tmp_path / "s.dat").write_bytes(bytes(12000))
    (tmp_path / f"{text[0]}.hea").write_text(text)
    little_memory()
    with pytest.raises(DataError, match=r"promises"):
        read_recording(tmp_path / text[0], verify=False)


@pytest.mark.parametrize("place", ["../outside/x", "/etc/passwd", "records/../../outside/x"])
def test_tables_that_name_files_outside_the_data_set(tmp_path: Path, place: str) -> None:
    from heartllm.data.mimic import MEASUREMENTS, RECORDS, REPORT_COLUMNS, TIMES
    from heartllm.data.ptbxl import COLUMNS, DATABASE

    row = dict.fromkeys(COLUMNS, "")
    row |= {"ecg_id": "1", "patient_id": "1", "scp_codes": "{}", "filename_hr": place}
    (tmp_path / "ptbxl").mkdir()
    names = list(row)
    table = ",".join(names) + "\n" + ",".join(row[name] for name in names) + "\n"
    (tmp_path / "ptbxl" / DATABASE).write_text(table)
    (tmp_path / "mimic").mkdir()
    records = f"subject_id,study_id,file_name,ecg_time,path\n1,1,1,2100-01-01 00:00:00,{place}\n"
    (tmp_path / "mimic" / RECORDS).write_text(records)
    measured = ["study_id", *REPORT_COLUMNS, *TIMES]
    (tmp_path / "mimic" / MEASUREMENTS).write_text(",".join(measured) + "\n1" + "," * (len(measured) - 1) + "\n")
    for dataset, column in (("ptbxl", "filename_hr"), ("mimic", "path")):
        with pytest.raises(HeartLLMError, match=f"'{column}' holds"):
            open_dataset(dataset, tmp_path).entries()


def test_labels_are_data_and_not_code(tmp_path: Path) -> None:
    """`scp_codes` is a Python literal; an expression is none."""
    from heartllm.data.ptbxl import parse_codes

    for text in ("__import__('os').system('touch ran')", "{'NORM': open('ran', 'w')}", "{" * 5000, "{'a': 10**10**10}"):
        with pytest.raises(DataError):
            parse_codes(text, "here")
    assert not Path("ran").exists()


def test_question_files_name_recordings_by_id_only(tmp_path: Path) -> None:
    """ECG-QA's rows carry paths of their authors' disks; none of them is opened."""
    import json

    from heartllm.data.ecgqa import read_questions

    row: dict[str, Any] = {
        "template_id": 1,
        "question_id": 1,
        "sample_id": 1,
        "question_type": "single-verify",
        "attribute_type": "scp_code",
        "question": "Does it?",
        "answer": ["yes"],
        "ecg_id": [1],
        "attribute": ["x"],
        "ecg_path": ["../../etc/passwd"],
    }
    (tmp_path / "q.json").write_text(json.dumps([row]))
    (found,) = read_questions(tmp_path / "q.json")
    assert found.ecg_id == ("1",)
    assert "passwd" not in repr(found)


def plain(folder: Path, *changes: tuple[str, str]) -> Path:
    """A small record in the plain format, its header changed."""
    header(folder / "r.hea", samples="1000")
    text = (folder / "r.hea").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "r.hea").write_text(text)
    (folder / "r.dat").write_bytes(np.random.default_rng(0).integers(-900, 900, (1000, 12), dtype=np.int16).tobytes())
    return folder / "r"


@pytest.mark.parametrize(
    "changes",
    [
        ("aVF", "(" * 200_000),  # patterns that take time quadratic in a line
        ("r 12 500", "r 12 " + "9" * 200_000),
        ("1000/mV", f"1000({'1' * 5000})/mV"),  # more digits than int() takes
        ("r.dat 16", f"r.dat 16x{'1' * 5000}"),
        ("r.dat 16", "x" * 300 + " 16"),  # longer than any file's name
        ("V6", "V6\n" + "r.dat 16 1000/mV 16 0 0 0 0 V6\n" * 5000),
    ],
    ids=["name", "rate", "baseline", "frames", "file", "lines"],
)
def test_headers_that_would_take_for_ever_or_raise_anything(tmp_path: Path, changes: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"r\.hea"):
        read_recording(plain(tmp_path, changes), verify=False)


@pytest.mark.parametrize("gain", ["1e-320", "1e-40", "1e308"])
@pytest.mark.filterwarnings("error")
def test_absurd_gains(tmp_path: Path, gain: str) -> None:
    stem = plain(tmp_path, ("1000/mV", f"{gain}/mV"))
    if gain == "1e308":  # so little that nothing is left
        assert not read_recording(stem, verify=False).signal[0].any()
    else:
        with pytest.raises(DataError, match=r"beyond|missing samples"):
            read_recording(stem, verify=False)


@pytest.mark.filterwarnings("error")
def test_csv_and_npy_beyond_what_is_computed_with(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("# fs: 500\n# units: mV\n" + ",".join(LEADS) + "\n" + ("1e308," * 12)[:-1] + "\n")
    with pytest.raises(DataError, match="beyond"):
        read_recording(tmp_path / "r.csv", verify=False)
    (tmp_path / "r.csv").write_text(",".join(LEADS) + "\n" + "1" * 200_000 + ",1" * 11 + "\n")
    with pytest.raises(DataError, match="not valid CSV"):
        read_recording(tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text("(" * 100_000 + "," + ",".join(LEADS[1:]) + "\n" + "1,2,3,4,5,6,7,8,9,1,2,3\n")
    with pytest.raises(DataError, match=r"r\.csv"):
        read_recording(tmp_path / "r.csv", sampling_rate=500, units="mV")


@pytest.mark.parametrize("rate", ["0.001", "1e-300", "1e7"])
def test_hours_in_a_few_samples(tmp_path: Path, rate: str, little_memory: Callable[[], None]) -> None:
    """Resampled to 500 Hz they would take gigabytes."""
    stem = plain(tmp_path, ("r 12 500", f"r 12 {rate}"))
    little_memory()
    with pytest.raises(DataError, match="a sampling rate of"):
        read_recording(stem, verify=False)


def test_leads_that_the_wfdb_package_does_not_understand(tmp_path: Path) -> None:
    """A name of other letters: the package gives None for it."""
    stem = plain(tmp_path, ("V6", "ቧ"), ("r.dat 16", "r.dat 16:1"))
    with pytest.raises(DataError, match="ቧ"):
        read_recording(stem, verify=False)


def test_tables_of_odd_kinds(tmp_path: Path) -> None:
    from heartllm.data.dataset_tables import below, read_rows
    from heartllm.data.ptbxl import parse_codes, read_split_lists
    from heartllm.data.reports import read_reports
    from heartllm.data.splits import read_manifest

    with pytest.raises(DataError):
        parse_codes("{'NORM': " + "9" * 400 + "}", "here")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_rows(tmp_path, ["a"]))
    for path in ("x" * 300, "a/\0", "/x", "../x", ""):
        with pytest.raises(DataError, match="'path' holds"):
            below(tmp_path, {"path": path}, "path", "here")
    (tmp_path / "train_ecgs.tsv").write_bytes(b"0\t\x98\n")
    with pytest.raises(DataError, match=r"train_ecgs\.tsv"):
        read_split_lists(tmp_path)
    (tmp_path / "r.json").write_text('[{"ecg_id": 1, "report": "x", "patient_id": []}]')
    with pytest.raises(DataError, match="0 ids"):
        read_reports(tmp_path / "r.json")
    for patients in ("1e999", '"many"', "[]"):
        split = f'{{"ids": [], "sha256": "", "patients": {patients}}}'
        (tmp_path / "m.json").write_text(f'{{"version": 1, "dataset": "d", "splits": {{"train": {split}}}}}')
        with pytest.raises(DataError, match="no split manifest"):
            read_manifest(tmp_path / "m.json")

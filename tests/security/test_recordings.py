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

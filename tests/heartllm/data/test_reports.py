"""Report files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.reports import ReportRow, read_reports, reports_by_id, write_reports
from heartllm.errors import DataError

TEXT = st.text(min_size=1).filter(lambda text: bool(text.strip()))
ROWS = st.builds(
    ReportRow,
    ecg_id=st.integers(0, 10**8).map(str),
    report=TEXT,
    patient_id=st.none() | st.integers(0, 10**6).map(str),
    path=st.none() | TEXT,
    background=st.none() | TEXT,
)


def test_published_rows(tmp_path: Path) -> None:
    row = {"patient_id": 20372.0, "ecg_id": 3, "filepath": "records500/00003_hr", "report": "sinus rhythm", "more": 1}
    (tmp_path / "train.json").write_text(json.dumps([row]))
    assert read_reports(tmp_path) == [ReportRow("3", "sinus rhythm", "20372", "records500/00003_hr", None)]
    assert reports_by_id(tmp_path / "train.json") == {"3": "sinus rhythm"}


@pytest.mark.parametrize(
    ("row", "field"),
    [({"report": "x"}, "ecg_id"), ({"ecg_id": 1}, "report"), ({"ecg_id": 1, "report": 5}, "report")],
)
def test_a_wrong_row_names_file_row_and_field(tmp_path: Path, row: dict[str, object], field: str) -> None:
    path = tmp_path / "test.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(DataError, match=rf"test\.json, row 1, field '{field}'"):
        read_reports(path)


@given(st.lists(ROWS, max_size=4))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[ReportRow]) -> None:
    path = tmp_path_factory.mktemp("reports") / "rows.json"
    write_reports(rows, path)
    assert read_reports(path) == rows


@pytest.mark.real_data
def test_the_real_reports(data_root: Path) -> None:
    folder = data_root / "reports" / "ptbxl"
    assert [len(read_reports(folder / f"{split}.json")) for split in ("train", "valid", "test")] == [840, 78, 119]

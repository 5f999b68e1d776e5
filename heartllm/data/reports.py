"""Report files: JSON lists of rows with `ecg_id`, `report` and more (`patient_id`, `filepath`, `background`).

Both `reports/ptbxl/{train,valid,test}.json` and the report files of HeartLLM's authors have this form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartllm.data.dataset_json import Row, id_to_json, json_files, load_rows, save_rows


@dataclass(frozen=True)
class ReportRow:
    """One report.

    Attributes:
        ecg_id, patient_id: as text; patient_id is None where the row has none.
        report: the text.
        path: the waveform path as the file has it, None where it has none.
        background: the authors' patient text, see `heartllm.data.tabular.features_from_background`.
    """

    ecg_id: str
    report: str
    patient_id: str | None = None
    path: str | None = None
    background: str | None = None


def _one_id(row: Row, field: str) -> str:
    ids = row.ids(field)
    if len(ids) != 1:
        raise row.error(field, f"{len(ids)} ids for one report", "Give one id.")
    return ids[0]


def parse_report(row: Row) -> ReportRow:
    """One row, checked."""
    optional = {name: row.text(name) if row.fields.get(name) else None for name in ("filepath", "background")}
    return ReportRow(
        ecg_id=_one_id(row, "ecg_id"),
        report=row.text("report"),
        patient_id=_one_id(row, "patient_id") if row.fields.get("patient_id") is not None else None,
        path=optional["filepath"],
        background=optional["background"],
    )


def read_reports(path: str | Path) -> list[ReportRow]:
    """Reads report rows from a file, a folder or a glob pattern.

    Raises:
        DataError: naming the file, the row (from 1) and the field.
    """
    return [
        parse_report(Row(row, file, number))
        for file in json_files(path)
        for number, row in enumerate(load_rows(file), start=1)
    ]


def reports_by_id(path: str | Path) -> dict[str, str]:
    """ecg_id -> report text."""
    return {row.ecg_id: row.report for row in read_reports(path)}


def write_reports(rows: Iterable[ReportRow], path: str | Path) -> None:
    """Writes report rows in the authors' form; `read_reports` gives the same rows back."""

    def to_json(row: ReportRow) -> dict[str, Any]:
        fields: dict[str, Any] = {"patient_id": row.patient_id, "ecg_id": id_to_json(row.ecg_id), "filepath": row.path}
        return {**fields, "background": row.background, "report": row.report}

    save_rows(map(to_json, rows), Path(path))

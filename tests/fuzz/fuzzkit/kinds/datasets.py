"""Tables of data sets: PTB-XL's and MIMIC-IV-ECG's, ECG-QA's question files and report files."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzzkit import nasty
from fuzzkit.files import Files
from fuzzkit.kind import Kind

from heartllm.data.authors_rows import read_authors_rows
from heartllm.data.dataset import open_dataset
from heartllm.data.ecgqa import read_questions
from heartllm.data.mimic import REPORT_COLUMNS, TIMES
from heartllm.data.ptbxl import COLUMNS, INTERVALS
from heartllm.data.reports import read_reports
from heartllm.data.splits import SplitManifest, make_manifest, write_manifest

NUL = "\ue000"  # stands for it while a table is written


def table(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> bytes:
    """A CSV table."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
    writer.writeheader()
    # The writer of Python 3.10 refuses NUL, which is just what some cases are about.
    writer.writerows(
        {name: value.replace("\0", NUL) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    )
    return stream.getvalue().replace(NUL, "\0").encode()


def rows_of(data: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows and columns of a CSV table."""
    reader = csv.DictReader(io.StringIO(data.decode("utf-8", "replace")))
    return list(reader), list(reader.fieldnames or ())


def manifest_of(dataset: str, split_of: Mapping[str, str]) -> bytes:
    """A split manifest with the right hashes."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(SplitManifest(dataset, split_of, {"train": 2, "test": 1}), Path(folder) / "m")
        return (Path(folder) / "m").read_bytes()


def ptbxl() -> list[Files]:
    """Six recordings of six patients, by folds, by ECG-QA's lists, by a manifest."""
    rows = []
    for number in range(1, 7):
        rows.append(
            dict(zip(COLUMNS, [""] * len(COLUMNS), strict=True))
            | {"ecg_id": number, "patient_id": f"{1500 + number}.0", "age": 50.0 + number, "sex": number % 2}
            | {
                "height": "172.0" if number % 2 else "",
                "weight": "",
                "site": "0.0",
                "device": "CS-12   E",
                "report": "sinus",
            }
            | {
                "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
                "heart_axis": "MID",
                "extra_beats": "1ES" if number == 3 else "",
            }
            | {"infarction_stadium1": "Stadium I" if number == 4 else "", "baseline_drift": " , I-AVF,V5 "}
            | {"strat_fold": number + 4, "filename_hr": f"records500/00000/{number:05d}_hr"}
        )
    measured = [{"ecg_id": number, **dict.fromkeys(INTERVALS, 100 + number)} for number in range(1, 7)]
    plain: Files = {"ptbxl/ptbxl_database.csv": table(rows, COLUMNS)}
    reports = [{"ecg_id": number, "report": "sinus rhythm.", "patient_id": 1500} for number in range(1, 4)]
    lists: Files = {
        f"ecgqa/ptbxl/{split}_ecgs.tsv": f"0\t{number}\n1\t{number + 1}\n".encode()
        for split, number in (("train", 1), ("valid", 3), ("test", 5))
    }
    return [
        {**plain, "ptbxl/intervals.csv": table(measured, ("ecg_id", *INTERVALS))},
        {**plain, **lists, "reports/ptbxl/train.json": json.dumps(reports).encode()},
        {**plain, "ptbxl/split_manifest.json": manifest_of("ptbxl", {"1": "train", "2": "train", "5": "test"})},
    ]


def mimic() -> list[Files]:
    """Four recordings of two patients, with and without ages and a manifest."""
    records, measured = [], []
    for number in range(4):
        subject, study = 10_000_000 + number // 2, 40_000_000 + number
        path = f"files/p1000/p{subject}/s{study}/{study}"
        time = f"21{number}0-05-05 10:00:00"
        records.append({"subject_id": subject, "study_id": study, "file_name": study, "ecg_time": time, "path": path})
        measured.append(
            {"subject_id": subject, "study_id": study, "report_0": "Sinus rhythm", "report_1": "Possible old infarct"}
            | dict(zip(TIMES, (800, 40, 140, 180, 270, 580, 45), strict=True))
        )
    patients = [
        {"subject_id": 10_000_000 + n, "gender": "FM"[n], "anchor_age": 60, "anchor_year": 2100} for n in range(2)
    ]
    plain: Files = {
        "mimic/record_list.csv": table(records, ("subject_id", "study_id", "file_name", "ecg_time", "path")),
        "mimic/machine_measurements.csv": table(measured, ("subject_id", "study_id", *REPORT_COLUMNS, *TIMES)),
    }
    ages = table(patients, ("subject_id", "gender", "anchor_age", "anchor_year"))
    manifest = manifest_of("mimic", {"40000000": "train", "40000001": "train", "40000002": "test"})
    return [plain, {**plain, "mimic/patients.csv": ages}, {**plain, "mimic/split_manifest.json": manifest}]


def cells(rng: Random, files: Files) -> Files:
    """Cells of a table become odd ones, a column goes, an id comes twice."""
    name = rng.choice([name for name in files if name.endswith(".csv")])
    rows, names = rows_of(files[name])
    for _ in range(rng.choice((1, 1, 3))):
        row, column = rng.choice(rows), rng.choice(names)
        literals = ("{'NORM': 1e999}", "{'X': 0}", "{" * 900, "{'NORM': [0]}", "{1: 2}", "[1]", "{'NORM': 'nan'}", "()")
        odd = (nasty.number(rng), nasty.text(rng), rng.choice(rows)[column], rng.choice(literals))
        row[column] = rng.choice(odd)
    if rng.random() < 0.2:
        names = [part for part in names if part != rng.choice(names)]
    kept = [{part: row[part] for part in names} for row in rows]
    try:
        return {**files, name: table(kept, names)}
    except UnicodeEncodeError:
        return files


def read_tables(folder: Path, rng: Random) -> None:
    """All that `heartllm data splits` reads."""
    name = "ptbxl" if (folder / "ptbxl").exists() else "mimic"
    make_manifest(name, open_dataset(name, folder).entries())


TABLES = Kind("tables", lambda: [*ptbxl(), *mimic()], read_tables, ("",), (cells,), 0.5, also=("ptbxl: ", "mimic: "))


# ECG-QA -------------------------------------------------------------------------------------------------------------
def questions() -> list[Files]:
    """Question files with their classes, rows of the authors' form, report files."""
    row = {
        "template_id": 1, "question_id": 5, "sample_id": 7, "question_type": "single-verify",
        "attribute_type": "scp_code",
        "question": "Does this ECG show symptoms of sinus bradycardia?", "answer": ["yes"], "ecg_id": [12],
        "attribute": ["sinus bradycardia"],
    }  # fmt: skip
    pair = {
        **row,
        "question_type": "comparison_consecutive-verify",
        "ecg_id": [12, 13],
        "attribute": None,
        "template_id": 43,
    }
    rows = [row, {**row, "sample_id": 8, "answer": ["no"], "ecg_id": "13"}, {**row, "sample_id": 9, "derived": True}]
    background = "Patient Information: - Patient ID: 9496; - Age: 54; - Sex: 1; - Height: nan; - Weight: 59;"
    authors = [{**row, "ecg_path": ["/x/records500/00012_hr"], "background": background}, {**row, "ecg_path": "a/b"}]
    reports = [{"ecg_id": 12, "report": "sinus rhythm.", "patient_id": 3, "filepath": "x", "background": background}]
    classes = table([{"template_id": 1, "classes": "['yes', 'no', 'not sure']"}], ("template_id", "classes"))
    return [
        {"qa/test/00000.json": json.dumps(rows).encode(), "qa/test/00001.json": json.dumps([pair, row]).encode()},
        {"qa/answers_for_each_template.csv": classes, "qa/test/00000.json": json.dumps(rows).encode()},
        {"authors/template_test_background.json": json.dumps(authors).encode()},
        {"reports/test.json": json.dumps(reports * 3).encode()},
    ]


def read_rows(folder: Path, rng: Random) -> None:
    """Reads the files with the reader that their folder's name stands for."""
    if (folder / "reports").exists():
        read_reports(folder / "reports")
    elif (folder / "authors").exists():
        for row in read_authors_rows(folder / "authors"):
            assert isinstance(row.features, str)
    else:
        read_questions(folder / "qa")


ECGQA = Kind("ecgqa", questions, read_rows)

KINDS: Sequence[Kind] = (TABLES, ECGQA)

from __future__ import annotations

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from heartllm.errors import HeartLLMError
from heartllm_eval import cli, tables
from heartllm_eval.models.controls import Majority
from heartllm_eval.planning import RunSpec
from heartllm_eval.records import read_record
from heartllm_eval.runner import run
from heartllm_eval.schema import Figure, dumps
from heartllm_eval.testing import Echo


@pytest.fixture
def folder(spec: RunSpec) -> Path:
    run(
        replace(spec, controls=True),
        lambda system, context: Majority(context) if system.kind == "majority" else Echo(),
    )
    return spec.output


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_record_reads_back_whole(folder: Path) -> None:
    record = read_record(folder)
    assert json.loads(dumps(record)) == json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record.settings["exact_below_clusters"] > 0


def test_an_older_record_reads_with_defaults(folder: Path) -> None:
    path = folder / "run.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    for figure in data["figures"]:
        del figure["interval"]
    data["figures"][0]["later"] = 1
    path.write_text(json.dumps(data), encoding="utf-8")
    assert read_record(folder).figures[0].interval == "bootstrap"
    data["figures"][0].pop("n")
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(HeartLLMError, match="heartllm-eval score"):
        read_record(folder)


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_every_table_names_controls_counts_and_signature(
    form: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "tables", folder, "--format", form) == 0
    told = capsys.readouterr().out
    assert told.count("synthetic recordings, derived questions") >= len(tables.build(read_record(folder)))
    for table in tables.build(read_record(folder)):
        text = table.markdown()
        assert "majority" in text
        assert re.search(r"\bn\b|\(n=", text)
        if "differences" not in table.title:
            assert "24 patients" in text
            assert "`metric:" in text


def test_csv_holds_every_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "tables", folder, folder, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    record = read_record(folder)
    assert len(rows) == len(record.figures) + len(record.differences)
    first = rows[0]
    assert float(first["value"]) == record.figures[0].value
    assert (first["run"], first["synthetic"], first["interval"]) == (str(folder), "true", record.figures[0].interval)
    assert all(row["signature"].startswith("metric:") for row in rows)
    assert {row["control"] for row in rows if row["row"] == "difference"} == {"majority"}


def test_exact_intervals_are_marked_and_explained() -> None:
    figure = Figure("t", "model", "exact_match.strict", "all", 100.0, 83.2, 100.0, 20, 20, 0.95, "clopper-pearson")
    assert tables.cell(figure) == "100.0 [83.2, 100.0]†"
    assert tables.cell(replace(figure, interval="bootstrap")) == "100.0 [83.2, 100.0]"
    assert tables.cell(replace(figure, low=None, high=None, interval="none")) == "100.0"
    notes = tables.interval_notes([figure], {}, {"resamples": 10}, 20)
    assert "Korn and Graubard" in notes[1]
    few, count = replace(figure, low=None, clusters=5), replace(figure, low=None, clusters=50)
    assert tables.interval_notes([few], {}, {}, 5)[-1] == "No interval: too few patients."
    assert "a count" in tables.interval_notes([count], {}, {}, 50)[-1]


def test_slices_come_in_a_fixed_order() -> None:
    labels = ["sex=male", "question_type=single-query", "all", "question_type=single-verify", "age=0-39"]
    assert sorted(labels, key=tables.slice_rank) == [
        "all",
        "question_type=single-verify",
        "question_type=single-query",
        "age=0-39",
        "sex=male",
    ]
    assert [tables.slice_name(label) for label in labels[:3]] == ["sex male", "query", "all"]


@pytest.mark.parametrize(("arguments", "message"), [(["{}", "--format", "pdf"], "latex"), (["none"], "no such folder")])
def test_bad_usage(
    arguments: list[str],
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    assert command(monkeypatch, "tables", *(part.format(folder) for part in arguments)) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_run_without_scores_is_told(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(spec, predict_only=True), lambda system, context: Echo())
    capsys.readouterr()
    assert command(monkeypatch, "tables", spec.output) == 1
    assert "no scores yet (status 'predicted')" in capsys.readouterr().err


def test_damaged_requests_of_a_run_are_told(
    spec: RunSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(replace(spec, predict_only=True), lambda system, context: Echo())
    (path,) = spec.output.glob("*/requests.jsonl")
    path.write_text("{}\n", encoding="utf-8")
    capsys.readouterr()
    for name in ("score", "validate"):
        assert command(monkeypatch, name, spec.output) == 1
        assert f"error: {path}, line 1: a request needs a text 'id'" in capsys.readouterr().err


PARTS = (
    (("settings",), 3),
    (("settings", "resamples"), "many"),
    (("settings", "notes"), {}),
    (("systems", "model"), "gold"),
    (("systems", "model", "model_args"), []),
    (("tasks", "invented_qa", "metrics"), "exact_match.strict"),
    (("tasks", "invented_qa", "slices"), [1]),
    (("tasks", "invented_qa", "primary"), None),
    (("figures", 0), "100"),
    (("figures", 0, "value"), "100"),
    (("figures", 0, "n"), None),
    (("command",), ["heartllm-eval", 1]),
    (("versions",), []),
    (("resumed",), [1]),
)


@pytest.mark.parametrize(("place", "value"), PARTS, ids=[".".join(map(str, place)) for place, _ in PARTS])
def test_a_record_of_other_types_is_told(
    place: tuple[str | int, ...],
    value: object,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = folder / "run.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    part = data
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    broken = json.dumps(data)
    path.write_text(broken, encoding="utf-8")
    names = ("tables",) if place[0] == "figures" else ("tables", "score", "validate", "compare")
    for name in names:
        capsys.readouterr()
        assert command(monkeypatch, name, folder) == 1
        told = capsys.readouterr().err
        assert "not a run record" in told
        assert str(path) in told
        assert told.count("\n") == 1
    assert path.read_text(encoding="utf-8") == broken
    path.unlink()  # it follows no schema

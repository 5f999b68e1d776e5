"""Whose ECG it was stands in no prompt, no log and no report, and in an export only if it is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartllm.data.records import Entry
from heartllm.data.tabular import patient_features
from heartllm.errors import DataError, UsageError
from heartllm_eval import cli, files, frozen, runner
from heartllm_eval.deidentify import export
from heartllm_eval.records import read_json
from heartllm_eval.schema import cluster_id
from heartllm_eval.scoring import Options
from heartllm_eval.testing import Echo, invented_requests

Make = Callable[..., Path]


def everything(folder: Path) -> str:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return "\n".join(f"{path}\n{path.read_bytes().decode('utf-8', 'replace')}" for path in paths)


def identifiers() -> list[str]:
    """Ids of samples, recordings, and patients as they are and as a run hashes them."""
    found = set()
    for number, request in enumerate(invented_requests("test")):
        found |= {request.id, *request.record_ids, request.cluster, f"test{number // 6}v"}
    return sorted(found)


@pytest.fixture
def make(spec: Any, tmp_path: Path) -> Make:
    def build(name: str, wrong_every: int = 4) -> Path:
        chosen = replace(spec, output=tmp_path / "runs" / name, command=("heartllm-eval", "run", "-o", "/home/me/x"))
        runner.run(chosen, lambda system, context: Echo(wrong_every=wrong_every))
        return chosen.output

    return build


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def test_an_export_has_no_identifiers(make: Make, tmp_path: Path) -> None:
    run = make("ours")
    assert "test3v1" in everything(run)
    (folder,) = export([run], tmp_path / "shared")
    seen = everything(folder).replace(str(tmp_path), "")
    for identifier in identifiers():
        assert identifier not in seen
    assert "Age: 61" not in seen
    assert "/home/me" not in seen
    assert "Age: 61" in everything(export([run], tmp_path / "told", features=True)[0])


def test_an_export_scores_as_the_run_did(make: Make, tmp_path: Path) -> None:
    run = make("ours")
    (folder,) = export([run], tmp_path / "shared")
    assert files.check_run(folder) == 144
    options = Options(resamples=200)
    before, after = (
        files.rescore(run, options=options, verbosity=0),
        files.rescore(folder, options=options, verbosity=0),
    )
    assert [(f.metric, f.slice, f.value, f.n, f.clusters) for f in before.figures] == [
        (f.metric, f.slice, f.value, f.n, f.clusters) for f in after.figures
    ]
    patients = {json.loads(line)["cluster"] for line in (folder / "invented_qa" / "requests.jsonl").open()}
    assert len(patients) == 24


def test_numbers_tell_nothing(make: Make, tmp_path: Path) -> None:
    """They are drawn anew: neither the order of the data set nor an earlier export tells which row is whose."""
    run = make("ours")
    once, again = (export([run], tmp_path / name)[0] / "invented_qa" / "requests.jsonl" for name in ("a", "b"))
    questions = [[json.loads(line)["references"] for line in path.open()] for path in (once, again)]
    assert questions[0] != questions[1]
    assert questions[0] != [list(request.references) for request in invented_requests("test")]


def test_exported_runs_compare(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = export([make("ours"), make("theirs", 3)], tmp_path / "shared")
    assert command(monkeypatch, "compare", ours, theirs, "--confidence_n", "100", "--format", "json") == 0


def test_the_command(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make("ours")
    for name, option, held in (("a", (), False), ("b", ("--deidentify",), False), ("c", ("--keep_ids",), True)):
        assert command(monkeypatch, "export", run, "-o", tmp_path / name, *option) == 0
        assert ("test3v1" in everything(tmp_path / name / "ours")) is held
    with pytest.raises(UsageError, match="exists already"):
        export([run], tmp_path / "a")
    with pytest.raises(UsageError, match="two runs are called"):
        export([run, run], tmp_path / "d")


def test_a_frozen_run_has_no_identifiers(make: Make, tmp_path: Path) -> None:
    (folder,) = frozen.freeze(make("ours"), tmp_path / "frozen")
    seen = everything(folder).replace(str(tmp_path), "")
    assert not any(identifier in seen for identifier in identifiers())


def test_prompts_name_nobody() -> None:
    entry = Entry("rec-77", "pat-88", "ptbxl", Path("/data/p88/rec-77"), age=54, sex="female", site="hospital-9")
    shown = patient_features(entry)
    assert shown == "Age: 54 years. Sex: female."
    assert cluster_id("ptbxl", "pat-88") != "pat-88"
    assert "88" not in shown


@pytest.mark.parametrize("name", ["../../elsewhere", "/elsewhere", "a/b", ".."])
@pytest.mark.parametrize("part", ["tasks", "systems"])
def test_a_run_whose_tasks_lead_elsewhere(make: Make, tmp_path: Path, name: str, part: str) -> None:
    """Tasks and systems are folders: of a stranger's run, none of them is read or written outside of it."""
    path = make("ours") / "run.json"
    record = json.loads(path.read_text())
    record[part] = {name: next(iter(record[part].values()))}
    path.write_text(json.dumps(record))
    for use in (read_json, lambda run: frozen.freeze(run, tmp_path / "f"), lambda run: export([run], tmp_path / "e")):
        with pytest.raises(DataError, match="not a run record"):
            use(path.parent)


def test_a_bad_recording_is_told_without_its_patients_folder(tmp_path: Path) -> None:
    """MIMIC's folders are patients: p10000032/s40689238/40689238.hea."""
    from heartllm_eval.models.base import Context
    from heartllm_eval.models.prompting import failed
    from heartllm_eval.requests import Workspace

    said: list[str] = []
    where = tmp_path / "files" / "p10000032" / "s40689238" / "40689238.hea"
    request = replace(invented_requests("test")[0], dataset="mimic", record_ids=("40689238",))
    for place in (where, f"{where}:3"):
        error = DataError("the file is short", where=place, remedy="Fetch it again.")
        kept = failed(Context(Workspace(), warn=said.append), request, error)
        assert kept.startswith("40689238.hea")
        assert kept.endswith("the file is short. Fetch it again.")
        assert "p10000032" not in kept + "".join(said)

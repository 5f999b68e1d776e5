"""`heartllm-eval run --model authors`: a whole run on an invented hospital, and what its arguments refuse."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heartllm.data.synthetic import write_site
from heartllm.errors import HeartLLMError
from heartllm_eval.cli import app
from heartllm_eval.records import read_record
from heartllm_eval.tables import render

SUITE = """
version = 1
name = "{name}"
title = "A test"
kind = "{kind}"
dataset = "synthetic-a"
split = "train"
synthetic = true
[questions]
per_cell = 1
"""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hospital")
    write_site("a", root, recordings=12, seed=3, workers=1)
    for kind in ("qa", "report"):
        (root / f"small_{kind}.toml").write_text(SUITE.format(name=f"small_{kind}", kind=kind))
    return root


def evaluate(hospital: Path, out: Path, arguments: str, *more: str, tasks: str = "small_qa,small_report") -> Any:
    words = ["run", "-M", "authors", "-a", arguments, "-t", tasks, "--include_path", hospital, "--data_root", hospital]
    words += ["-o", out, "-L", "6", "-b", "4", "--confidence_n", "100", "--verbosity", "0", *more]
    return CliRunner().invoke(app, [str(word) for word in words])


def samples(out: Path, task: str) -> list[Any]:
    lines = (out / task / "model" / "samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_a_run_in_compat(
    hospital: Path, best: Path, tuned: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartllm.compat.model.MAX_NEW_TOKENS", {"qa": 8, "report": 12})
    prompts: list[str] = []
    from heartllm.compat.prompts import Prompts

    parts = Prompts.parts
    monkeypatch.setattr(Prompts, "parts", lambda *a: prompts.append("".join(parts(*a))) or parts(*a))
    arguments = f"codec={best},llm={tuned},backbone={backbone}"
    found = evaluate(hospital, tmp_path / "run", arguments, "--use_cache", str(tmp_path / "cache"))
    assert found.exit_code == 0, found.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    model = record["systems"]["model"]["model"]
    assert (record["status"], model["mode"], model["leads"]) == ("done", "compat", "stored")
    assert {figure["metric"] for figure in record["figures"]} >= {"exact_match.heartllm", "bleu.heartllm/bleu4"}
    tables = (tmp_path / "run" / "results.md").read_text(encoding="utf-8")
    assert "| model (compat) |" in tables  # each row of each table says it
    rows = csv.DictReader(io.StringIO(render({"x": read_record(tmp_path / "run")}, "csv")))
    assert {row["mode"] for row in rows} == {"compat"}
    for task in ("small_qa", "small_report"):
        answers = samples(tmp_path / "run", task)
        assert len(answers) == 6
        assert all(answer["prediction"]["error"] is None for answer in answers)
    asked = [text for text in prompts if "Question:" in text]
    assert len(asked) == 6
    assert not any("Patient" in text or "years" in text for text in asked)  # no tabular text for questions
    assert sum("Background: Patient Information: - Patient ID:" in text for text in prompts) == 6
    # Codes come from the cache the second time; without ECG, or with another's, answers may change but runs are whole.
    files = sorted((tmp_path / "cache").rglob("*.npy"))
    assert 1 <= len(files) <= 12
    for ecg in ("none", "shuffled"):
        again = evaluate(hospital, tmp_path / ecg, f"{arguments},ecg={ecg}", tasks="small_qa")
        assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("codec=best.pt", 2, "authors needs 'llm'"),
        ("codec={best},llm={tuned},backbone={backbone},leads=mimik", 2, "leads='mimik'"),
        ("codec={best},llm={tuned},backbone={backbone},alpha=x", 2, "alpha='x'"),
        ("codec={best},llm={tuned},backbone={backbone},promts=x", 2, "Did you mean 'prompts'"),
        ("codec={best},llm={tuned},backbone={backbone},prompts=absent.toml", 2, "no such file"),
        ("codec={best},llm={tuned},backbone=absent", 2, "is no folder with a Hugging Face model"),
        ("codec=absent.pt,llm={tuned},backbone={backbone}", 2, "no such file"),
        ("codec={tuned},llm={tuned},backbone={backbone}", 1, 'is not {"model", "step"}'),
        ("codec={best},llm={best},backbone={backbone}", 1, "is no plain tensor"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    hospital: Path,
    best: Path,
    tuned: Path,
    backbone: Path,
    tmp_path: Path,
    arguments: str,
    code: int,
    message: str,
) -> None:
    given = arguments.format(best=best, tuned=tuned, backbone=backbone)
    found = evaluate(hospital, tmp_path / "run", given, tasks="small_qa")
    assert isinstance(found.exception, HeartLLMError), found.output
    assert found.exception.exit_code == code
    assert message in str(found.exception)
    assert "\n" not in str(found.exception)


def test_a_bad_recording_is_an_error_of_its_own(
    best: Path, tuned: Path, backbone: Path, make_recording: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    import numpy as np

    from heartllm_eval.models.authors import Authors
    from heartllm_eval.models.base import Context, Task
    from heartllm_eval.schema import Request

    monkeypatch.setattr("heartllm.compat.model.MAX_NEW_TOKENS", {"qa": 3, "report": 3})

    class Workspace:
        """Reads one good and one bad recording."""

        def read(self, dataset: str, record: str, reader: Any = None) -> Any:
            recording = make_recording()
            return recording if record == "good" else replace(recording, signal=recording.signal * np.nan)

    told: list[str] = []
    context = Context(Workspace(), warn=told.append)  # type: ignore[arg-type]
    model = Authors(context, codec=str(best), llm=str(tuned), backbone=str(backbone))
    requests = [
        Request(id=name, kind="qa", dataset="ptbxl", record_ids=(name,), question="Why?") for name in ("good", "bad")
    ]
    answers = {answer.id: answer for answer in model.predict(requests, Task("t", "qa", requests))}
    assert answers["good"].error is None
    assert "NaN" in str(answers["bad"].error)
    assert any("in substance" in line for line in told)


@pytest.mark.slow
def test_a_dry_run_shows_the_authors_prompts(
    hospital: Path, best: Path, tuned: Path, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heartllm.compat.model.MAX_NEW_TOKENS", {"qa": 2, "report": 2})
    arguments = f"codec={best},llm={tuned},backbone={backbone}"
    found = evaluate(hospital, tmp_path / "run", arguments, "--dry-run", "--write_out", "--probe", "1")
    assert found.exit_code == 0, found.output
    assert "[ECG: 313 codes]" in found.output
    assert "small_qa/model: about " in found.output
    lengths = [line for line in found.output.splitlines() if "prompt tokens, the longest prompt" in line]
    assert len(lengths) == 2
    assert all(int(line.split("the longest prompt ")[1].split(";")[0]) > 315 for line in lengths)

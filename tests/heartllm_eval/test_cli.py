from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heartllm_eval import cli
from heartllm_eval.schema import dumps
from heartllm_eval.testing import invented_requests

RUNNER = CliRunner()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Runs the console script in this process and gives its exit code."""
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """References in our own form, and predictions that are right but for every fourth."""
    requests = invented_requests("test")
    references, predictions = tmp_path / "references.jsonl", tmp_path / "answers.jsonl"
    references.write_text("".join(dumps(request) + "\n" for request in requests), encoding="utf-8")
    said = [{"id": r.id, "prediction": "?" if i % 4 == 0 else "; ".join(r.references)} for i, r in enumerate(requests)]
    predictions.write_text("\n".join(map(json.dumps, said)), encoding="utf-8")
    return predictions, references


@pytest.mark.parametrize("name", ["", "run", "score", "compare", "tables", "ls", "validate", "doctor", "fetch-wordnet"])
def test_help(name: str) -> None:
    result = RUNNER.invoke(cli.app, [*filter(None, [name]), "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
    if name in ("run", "score", "compare", "tables", "validate"):
        assert f"heartllm-eval {name}" in " ".join(result.output.split())


def test_score(pair: tuple[Path, Path], tmp_path: Path) -> None:
    predictions, references = pair
    out = tmp_path / "out"
    result = RUNNER.invoke(
        cli.app,
        [
            "score",
            str(predictions),
            "--references",
            str(references),
            "--confidence-n",
            "200",
            "--format",
            "json",
            "-o",
            str(out),
        ],
    )
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    overall = next(f for f in record["figures"] if f["metric"] == "exact_match.strict" and f["slice"] == "all")
    assert (overall["value"], overall["n"], overall["clusters"]) == (75.0, 144, 24)
    assert overall["low"] < 75 < overall["high"]
    assert "bootstrap by patient" in (out / "results.md").read_text(encoding="utf-8")
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["figures"] == record["figures"]


def test_options_in_csv_are_one_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.csv").write_text(
        "id,patient_id,answer,question_type,options\n"
        "1,a,yes,single-verify,yes; no ;not sure\n"
        "2,b,lead I; lead II,single-query,lead I; lead II; none\n"
    )
    (tmp_path / "p.csv").write_text("id,prediction\n1,It says yes.\n2,lead II; lead I\n")
    said = ["score", tmp_path / "p.csv", "-r", tmp_path / "r.csv", "--confidence_n", "100", "--format", "json"]
    assert command(monkeypatch, *said) == 0
    figures = {f["metric"]: f["value"] for f in json.loads(capsys.readouterr().out)["figures"] if f["slice"] == "all"}
    assert figures["exact_match.official_llm"] == 100.0
    assert figures["answer_form.strict/unparseable"] == 0.0
    assert figures["answer_form.strict/out_of_option"] == 50.0


@pytest.mark.parametrize("row", ['{"id": "1", "answer": ["yes"]}', '{"id": "1", "report": "sinus rhythm"}'])
def test_references_are_not_taken_for_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], row: str
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(row + "\n")
    assert command(monkeypatch, "score", path, "-r", path, "--confidence_n", "100") == 1
    told = capsys.readouterr()
    assert "line 1: the row has no 'prediction'" in told.err
    assert told.out == ""


def test_half_a_character_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ('{"id": "1", "answer": ["yes"], "question": "\\ud83d?"}', '{"id": "2", "answer": "no", "template_id": "²"}')
    (tmp_path / "r.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "p.jsonl").write_text('{"id": "1", "prediction": "yes"}\n{"id": "2", "prediction": "no \\uD83D"}\n')
    (tmp_path / "p.json").write_text('{"1": "yes", "2": "no \\uD83D"}')
    for name in ("p.jsonl", "p.json"):
        out = tmp_path / name.replace(".", "-")
        said = ["score", tmp_path / name, "-r", tmp_path / "r.jsonl", "--confidence_n", "100", "-o", out]
        assert command(monkeypatch, *said) == 0, capsys.readouterr().err
        assert "no \ufffd" in (out / "r" / "model" / "samples.jsonl").read_text(encoding="utf-8")
        assert command(monkeypatch, "score", out) == 0


def test_score_leaves_another_runs_folder_alone(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, references = pair
    out = tmp_path / "out"
    said = ["score", predictions, "-r", references, "--confidence_n", "100", "-o", out]
    assert command(monkeypatch, *said) == 0
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    capsys.readouterr()
    shorter = tmp_path / "shorter" / references.name
    shorter.parent.mkdir()
    shorter.write_text("".join(references.read_text("utf-8").splitlines(keepends=True)[:99]), encoding="utf-8")
    for change, shown in (
        (["--metrics", "exact_match.strict"], "metrics: ['exact_match.strict', 'exact_match.official_llm'"),
        (["--missing", "error"], "missing: wrong -> error"),
        (["-r", shorter], "requests.references: "),
    ):
        assert command(monkeypatch, *said, *change) == 2
        told = capsys.readouterr()
        assert "the folder holds another run" in told.err
        assert shown in told.err
        assert told.err.count("\n") == 1
        assert not told.out
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    predictions.write_text(predictions.read_text("utf-8").replace('"?"', '"yes"'), encoding="utf-8")
    assert command(monkeypatch, *said) == 0  # the same file, mended, may be scored to the same place


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_score_shows_tables(pair: tuple[Path, Path], form: str) -> None:
    predictions, references = pair
    arguments = ["score", str(predictions), "-r", str(references), "--confidence_n", "100", "--format", form]
    result = RUNNER.invoke(cli.app, arguments)
    assert result.exit_code == 0
    for part in ("verify (n=48)", "all (n=144)", "75.0 [", "variant:official_llm", "by sex"):
        assert part in result.output


def test_score_simple_rows_without_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.csv").write_text("id,report\n1,sinus rhythm\n2,atrial fibrillation\n")
    (tmp_path / "p.csv").write_text("id,prediction\n1,sinus rhythm\n2,\n")
    code = command(
        monkeypatch, "score", tmp_path / "p.csv", "-r", tmp_path / "r.csv", "--metrics", "rouge.heartllm,bleu.heartllm"
    )
    told = capsys.readouterr()
    assert code == 0
    assert "50.0" in told.out
    assert "by sample (2 samples" in told.out
    assert "no patient ids" in told.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "-M", "majority", "-t", "ptbxl_qq"], 2, "Did you mean 'ptbxl_qa'"),
        (["run", "-M", "majorty", "-t", "ptbxl_qa"], 2, "Did you mean 'majority'"),
        (["run", "-M", "gold", "-t", "ptbxl_qa", "-L", "lots"], 2, "--limit"),
        (["run", "-M", "gold", "-t", "ptbxl_qa", "-a", "x"], 2, "k=v"),
        (["run", "-M", "gold", "-t", ","], 2, "heartllm-eval ls"),
        (["run", "-M", "gold", "-t", "ptbxl_qa", "-b", "0"], 2, "batch"),
        (["run", "-M", "gold", "-t", "ptbxl_qa"], 2, "HEARTLLM_DATA"),
        (["run", "--modell", "gold"], 2, "modell"),
        (["run"], 2, "model"),
        (["score", "none.jsonl", "-r", "none.jsonl"], 2, "no such file"),
        (["score", "none.jsonl"], 2, "--references"),
        (["score", "none.jsonl", "-r", "a", "--metrics", "bleu"], 2, "Did you mean 'bleu."),
        (["score", "none.jsonl", "-r", "a", "--format", "xml"], 2, "csv, json or latex"),
        (["score", "none.jsonl", "-r", "a", "--kind", "poem"], 2, "qa or report"),
        (["ls", "cats"], 2, "tasks, models, metrics or snomed"),
        (["validate", "none.toml"], 2, "no such file"),
    ],
)
def test_bad_usage_is_told_in_one_place(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEARTLLM_DATA", raising=False)
    assert command(monkeypatch, *arguments) == code
    told = capsys.readouterr()
    assert message in " ".join(told.err.split())
    assert "Traceback" not in told.err
    if told.err.startswith("error: "):
        assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "1"}', "line 1: the row has no reference"),
        ('{"id": "1", "answer": [1]}', "'answer' must be text or a list of texts"),
        ('{"id": "1", "answer": "a"}\n{"id": "1", "answer": "a"}', "1 id comes twice: 1"),
        ('{"id": "1", "answer": "a"}\n{"id": "2", "report": "a"}', "questions and reports in one file"),
        ('{"id": "1", "answer": "a", "question": 3}', "'question' must be text"),
        ('{"id": "1", "answer": "a", "kind": "poem"}', "'kind'"),
        ('{"id": "1", "answer": "a", "options": 3}', "line 1: 'options' must be a list of texts"),
        ('{"id": "1", "answer": "a", "options": ["a", 3]}', "line 1: 'options' must be a list of texts"),
        ('{"id": "1", "answer": "a", "slices": ["sex"]}', "line 1: 'slices' must be an object"),
        ("", "no references"),
    ],
)
def test_bad_references_are_named(
    row: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.jsonl").write_text(row)
    assert command(monkeypatch, "score", tmp_path / "p.jsonl", "-r", tmp_path / "r.jsonl") == 1
    assert message in capsys.readouterr().err


def test_score_reads_ecg_qas_own_rows(tmp_path: Path) -> None:
    row = {
        "template_id": 1,
        "question_id": 0,
        "sample_id": 12,
        "question_type": "single-verify",
        "attribute_type": "scp_code",
        "question": "Does this ECG show symptoms of X?",
        "answer": ["yes"],
        "ecg_id": [9176],
        "attribute": ["x"],
    }
    (tmp_path / "r.json").write_text(json.dumps([row]))
    (tmp_path / "p.json").write_text(json.dumps({"12": "Yes"}))
    result = RUNNER.invoke(
        cli.app, ["score", str(tmp_path / "p.json"), "-r", str(tmp_path / "r.json"), "--format", "json"]
    )
    assert result.exit_code == 0
    assert (
        next(f for f in json.loads(result.stdout)["figures"] if f["metric"] == "exact_match.strict")["value"] == 100.0
    )


def test_ls_and_doctor() -> None:
    listed = RUNNER.invoke(cli.app, ["ls"]).output
    assert "ptbxl_qa" in listed
    assert "synthetic recordings, derived questions" in listed
    assert "heartllm_eval.models.controls:Majority" in RUNNER.invoke(cli.app, ["ls", "models"]).output
    assert "exact_match.official_llm" in RUNNER.invoke(cli.app, ["ls", "metrics"]).output
    doctor = RUNNER.invoke(cli.app, ["doctor"]).output
    assert "WordNet" in doctor
    assert "{" not in doctor


def test_a_folder_without_a_run_is_told(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(monkeypatch, "score", pair[0].parent, "-r", pair[1]) == 2
    assert "this is a folder, and not a run's" in capsys.readouterr().err


def test_validate(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    predictions, references = pair
    assert command(monkeypatch, "validate", references) == 0
    assert "144 references (qa), 24 patients" in capsys.readouterr().out
    assert command(monkeypatch, "validate", predictions, "--references", references) == 0
    (predictions.parent / "said.jsonl").write_text('{"id": "1", "prediction": "a"}\n')
    assert command(monkeypatch, "validate", predictions.parent / "said.jsonl") == 2
    assert "Add --references FILE or --tasks SUITE." in capsys.readouterr().err
    with predictions.open("a", encoding="utf-8") as stream:
        stream.write('\n{"id": "unknown", "prediction": "a"}\n')
    assert command(monkeypatch, "validate", predictions, "--references", references) == 1
    assert "1 ids are not among the references: unknown" in capsys.readouterr().err


@pytest.mark.real_data
def test_a_real_run_from_plan_to_score(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["-t", "ptbxl_qa", "--data-root", data_root, "-L", "60", "--confidence-n", "200"]
    assert command(monkeypatch, "run", "-M", "gold", *asked, "--dry-run", "-o", tmp_path / "plan") == 0
    told = capsys.readouterr().out
    assert "60 requests" in told
    assert "systems: model (gold)" in told
    assert command(monkeypatch, "run", "-M", "majority", *asked, "-o", tmp_path / "majority") == 0
    assert command(monkeypatch, "run", "-M", "gold", *asked, "--controls", "-o", tmp_path / "gold") == 0
    ceiling = re.search(r"100\.0 \[(\d\d\.\d), 100\.0\]†", capsys.readouterr().out)  # no patient was wrong: exact
    assert ceiling
    assert 75 < float(ceiling[1]) < 97
    samples = tmp_path / "majority" / "ptbxl_qa" / "model" / "samples.jsonl"
    references = tmp_path / "plan" / "ptbxl_qa" / "requests.jsonl"
    assert command(monkeypatch, "score", samples, "-r", references, "--format", "json", "--confidence-n", "200") == 0
    by_file = json.loads(capsys.readouterr().out)["figures"]
    by_run = json.loads((tmp_path / "majority" / "run.json").read_text(encoding="utf-8"))["figures"]

    def overall(figures: list[dict[str, Any]]) -> dict[str, tuple[float, ...]]:
        return {f["metric"]: (f["value"], f["low"], f["high"]) for f in figures if f["slice"] == "all"}

    assert overall(by_run).items() <= overall(by_file).items()


def test_importing_and_scoring_load_no_heavy_package(pair: tuple[Path, Path]) -> None:
    predictions, references = pair
    code = (
        "import sys, heartllm_eval.cli as cli; sys.argv[0] = 'heartllm-eval'\n"
        "early = set(sys.modules)\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'wfdb', 'scipy', 'pandas', 'matplotlib', 'sklearn'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)), sorted({'numpy', 'nltk', 'sacrebleu'} & early))\n"
    )
    arguments = ["score", str(predictions), "--references", str(references), "--confidence_n", "100"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("LOADED [] []")

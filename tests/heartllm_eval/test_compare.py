from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import HeartLLMError
from heartllm_eval import cli, files
from heartllm_eval.binomial import t_quantile
from heartllm_eval.comparison.flips import examples, find_flips
from heartllm_eval.comparison.pairs import Wanted, compare
from heartllm_eval.comparison.seeds import MIN_SEEDS, t_interval
from heartllm_eval.comparison.sides import Reader, Side, parse_spec, with_labels
from heartllm_eval.metrics import get_metric
from heartllm_eval.models.controls import Majority
from heartllm_eval.planning import RunSpec
from heartllm_eval.runner import run
from heartllm_eval.schema import Prediction, Request, dumps
from heartllm_eval.scoring import Options
from heartllm_eval.testing import Echo, invented_requests

Make = Callable[..., Path]


@pytest.fixture
def make(spec: RunSpec, tmp_path: Path) -> Make:
    """Makes a run folder whose model is wrong on every so manyth request."""

    def build(name: str, wrong_every: int = 4, **changes: Any) -> Path:
        model = Echo(wrong_every=wrong_every)
        chosen = replace(spec, output=tmp_path / name, **changes)
        run(chosen, lambda system, context: Majority(context) if system.kind == "majority" else model)
        return chosen.output

    return build


def sides(*texts: str | Path) -> list[Side]:
    specs = [parse_spec(str(text)) for text in texts]
    return with_labels([Reader().read(spec) for spec in specs], specs)


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["heartllm-eval", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


FEW = Wanted(options=Options(resamples=200))


def test_two_runs(make: Make) -> None:
    found, flips = compare(sides(make("a", 5), make("b", 3)), FEW)
    assert list(found.sides) == ["a", "b"]
    overall = next(d for d in found.differences if (d.metric, d.slice) == ("exact_match.strict", "all"))
    # Of 144, the first is wrong on every 5th (29) and the second on every 3rd (48); 10 are wrong in both.
    assert (overall.system, overall.control, overall.n, overall.clusters) == ("a", "b", 144, 24)
    assert (overall.only_model, overall.only_control) == (38, 19)
    assert overall.value == pytest.approx(100 * 19 / 144)
    assert overall.model_value == pytest.approx(100 * 115 / 144)
    assert overall.test == "mcnemar+bootstrap"
    assert sum(flip.direction == "wrong->right" for flip in flips) == 38
    assert sum(flip.direction == "right->wrong" for flip in flips) == 19
    primary = {d.slice for d in found.differences if d.metric == "exact_match.strict"}
    assert {"all", "question_type=single-query", "sex=male", "attribute_type=noise"} <= primary
    assert {d.slice for d in found.differences if d.metric == "exact_match.heartllm"} == {"all"}
    tested = [d for d in found.differences if d.p is not None]
    assert found.settings["holm_tests"] == len(tested)
    assert all((d.p_holm or 0) >= (d.p or 0) for d in tested)


def test_systems_of_one_run_and_every_pair(make: Make) -> None:
    folder = make("a", 5, controls=True)
    reader = Reader()
    assert reader.systems(folder)[:2] == ["model", "majority"]
    found, _ = compare(sides(f"{folder}:model", f"ours={folder}:majority"), FEW)
    assert list(found.sides) == ["model", "ours"]
    one, two, three = (make(name, every) for name, every in (("x", 3), ("y", 4), ("z", 5)))
    found, _ = compare(sides(one, two, three), replace(FEW, all_pairs=True, slices=()))
    pairs = {(d.system, d.control) for d in found.differences}
    assert pairs == {("x", "y"), ("x", "z"), ("y", "z")}
    assert {d.slice for d in found.differences} == {"all"}
    assert {figure.system for figure in found.figures} == {"x", "y", "z"}


def test_the_command(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make("a", 5), make("b", 3)
    out = tmp_path / "out"
    assert command(monkeypatch, "compare", first, second, "--confidence-n", "200", "-o", out) == 0
    told = capsys.readouterr().out
    for part in (
        "Invented questions (synthetic recordings, derived questions): a − b, points",
        "38",
        "from b to a, 38 answers turn right and 19 turn wrong",
        "wrong → right",
        "Question 0?",
        "bootstrap by patient (24 patients, 200 resamples)",
        "Holm's correction runs over all",
        "variant:strict",
    ):
        assert part in told
    rows = list(csv.DictReader((out / "compare.csv").open(encoding="utf-8")))
    chosen = next(r for r in rows if r["row"] == "difference" and r["metric"] == "exact_match.strict")
    assert float(chosen["value"]) == pytest.approx(100 * 19 / 144)
    assert (chosen["synthetic"], chosen["n"], chosen["clusters"]) == ("true", "144", "24")
    assert "variant:strict" in chosen["signature"]
    record = json.loads((out / "compare.json").read_text(encoding="utf-8"))
    assert record["schema_version"] == 1
    assert len(record["examples"]) == 6
    flips = [json.loads(line) for line in (out / "flips.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(flips) == 57
    clusters = {request.cluster for request in invented_requests("test")}
    everything = "".join(path.read_text(encoding="utf-8") for path in out.iterdir())
    assert not any(cluster in everything for cluster in clusters)
    assert r"\toprule" in (out / "compare.tex").read_text(encoding="utf-8")
    assert "| wrong → right |" in (out / "compare.md").read_text(encoding="utf-8")
    for form in ("markdown", "csv", "json", "latex"):
        assert command(monkeypatch, "compare", first, second, "--confidence-n", "200", "--format", form) == 0
        assert capsys.readouterr().out


MISUSE: list[tuple[list[str], int, str]] = [
    ([], 2, "nothing to compare"),
    (["{a}", "none"], 2, "no such folder or file"),
    (["{a}"], 2, "one system only"),
    (["{a}", "{a}:model"], 2, "named twice"),
    (["{a}:modle", "{b}"], 2, "Did you mean 'model'?"),
    (["{a}", "{b}", "--systems", "model"], 2, "goes with one run"),
    (["x={a}", "x={b}"], 2, "the same label"),
    (["{a}", "{b}", "--metrics", "exact_match.strikt"], 2, "Did you mean 'exact_match.strict'?"),
    (["{a}", "{b}", "--metrics", "rouge.heartllm"], 2, "metrics of the tasks' kind"),
    (["{a}", "{b}", "--slices", "sexx"], 2, "Did you mean 'sex'?"),
    (["{a}", "{b}", "--tasks", "other"], 2, "it has invented_qa"),
    (["{a}", "{b}", "--format", "pdf"], 2, "csv, json or latex"),
    (["{a}", "{a}/run.json"], 2, "--references"),
    (["{a}", "{b}", "--references", "{a}/run.json"], 2, "brings its own references"),
    (["{a}", "{b}", "-o", "{a}/run.json/x"], 1, "cannot write there"),
    (["{a}", "--seeds", "{b},{a}"], 2, "either sides or --seeds"),
    (["--seeds", "{b}"], 2, "has one run"),
    (["--seeds", "x={a},{b}", "--seeds", "x={a},{b}"], 2, "comes twice"),
]


def test_bad_usage_is_one_line(make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folders = {"a": make("a", 5), "b": make("b", 3)}
    for arguments, code, message in MISUSE:
        capsys.readouterr()
        said = [argument.format(**folders) for argument in arguments]
        assert command(monkeypatch, "compare", *said, "--confidence_n", "100", "--verbosity", "0") == code, said
        told = capsys.readouterr().err
        assert message in told
        assert told.startswith("error: ")
        assert told.count("\n") == 1


def test_other_samples_are_refused_and_shown(make: Make) -> None:
    whole, part = make("whole"), make("part", 3, limit="0.25")
    with pytest.raises(HeartLLMError, match=r"108 only in whole \(first: test.*and 98 more\); --limit none and 0\.25"):
        compare(sides(whole, part), FEW)
    found, _ = compare(sides(whole, part), replace(FEW, intersect=True))
    assert {d.n for d in found.differences if d.metric == "exact_match.strict" and d.slice == "all"} == {36}
    assert "only the 36 samples that all have answered (of: whole 144, part 36)" in " ".join(
        found.tasks["invented_qa"]["notes"]
    )


def test_a_run_that_is_not_finished(make: Make) -> None:
    whole, part = make("whole"), make("part", 3)
    path = part / "invented_qa" / "model" / "samples.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:100]), encoding="utf-8")
    with pytest.raises(HeartLLMError, match="part has no answer yet to 44 of 144 samples"):
        compare(sides(whole, part), FEW)
    found, _ = compare(sides(whole, part), replace(FEW, intersect=True))
    assert found.tasks["invented_qa"]["requests"] == 100


def test_other_versions_signatures_and_questions_are_refused(make: Make) -> None:
    first, second = make("a"), make("b", 3)
    before = (second / "run.json").read_text(encoding="utf-8")
    edit(second / "run.json", lambda data: data["tasks"]["invented_qa"].update(version=2))
    with pytest.raises(HeartLLMError, match="version 1 in a, 2 in b"):
        compare(sides(first, second), FEW)
    (second / "run.json").write_text(before, encoding="utf-8")
    edit(
        second / "run.json",
        lambda data: data["signatures"].update({"exact_match.strict": "metric:exact_match|variant:strict|case:yes"}),
    )
    with pytest.raises(HeartLLMError, match=r"different ways: .*case:no.* in a, case:yes in b.*score"):
        compare(sides(first, second), FEW)
    (second / "run.json").write_text(before, encoding="utf-8")
    edit(
        second / "run.json", lambda data: data["config"]["tasks"]["invented_qa"]["generation"].update(max_new_tokens=7)
    )
    found, _ = compare(sides(first, second), FEW)
    notes = " ".join(found.tasks["invented_qa"]["notes"])
    assert "another definition in b -> a (generation.max_new_tokens: 7 -> 64)" in notes
    requests = second / "invented_qa" / "requests.jsonl"
    lines = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]
    lines[3]["references"], lines[4]["cluster"] = ["another"], "another"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(HeartLLMError, match="2 samples have the same id but another cluster, references in a and b"):
        compare(sides(first, second), replace(FEW, intersect=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a run record"),
        ("[]", "not a run record"),
        ('{"status": "done", "tasks": {"a": 1}}', "not a run record"),
        ('{"status": "done", "tasks": {}, "systems": []}', "not a run record"),
        ('{"schema_version": 99, "tasks": {}, "status": "done"}', "99"),
    ],
)
def test_broken_records(content: str, message: str, make: Make) -> None:
    folder = make("a")
    (folder / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(HeartLLMError, match=message):
        Reader().read(parse_spec(str(folder)))


def test_predictions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    requests = invented_requests("test")
    references = tmp_path / "references.jsonl"
    references.write_text("".join(dumps(request) + "\n" for request in requests), encoding="utf-8")
    for name, every in (("a", 5), ("b", 3)):
        rows = [
            {"id": r.id, "prediction": "?" if i % every == 0 else "; ".join(r.references)}
            for i, r in enumerate(requests)
            if i != 1
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    said = ["compare", tmp_path / "a.jsonl", f"theirs={tmp_path / 'b.jsonl'}", "-r", references]
    assert command(monkeypatch, *said, "--confidence_n", "200", "--format", "json") == 0
    told = capsys.readouterr()
    assert "1 ids have no prediction" in told.err
    record = json.loads(told.out)
    assert list(record["sides"]) == ["a", "theirs"]
    assert (record["differences"][0]["only_model"], record["differences"][0]["only_control"]) == (38, 19)
    assert command(monkeypatch, *said, "--missing", "error") == 1
    assert command(monkeypatch, *said, "--missing", "guess") == 2
    # What `score -o` writes can be compared like a run.
    for name in ("a", "b"):
        scored = ["score", tmp_path / f"{name}.jsonl", "-r", references, "--confidence_n", "100"]
        assert command(monkeypatch, *scored, "-o", tmp_path / "scored" / name) == 0
    capsys.readouterr()
    found, _ = compare(sides(tmp_path / "scored" / "a", tmp_path / "scored" / "b"), FEW)
    assert found.differences[0].only_model == 38
    again = files.rescore(tmp_path / "scored" / "a", options=Options(resamples=100), verbosity=0)
    assert again.figures[0].value == found.figures[0].value


def test_flips_spread_over_types_and_largest_changes_first() -> None:
    requests = [
        Request(id=f"{i}", kind="qa", question=f"Q{i}?", question_type=("single-verify", "single-query")[i % 10 == 0],
                cluster="secret", references=("yes",)) for i in range(40)
    ]  # fmt: skip
    metric = get_metric("exact_match.strict")
    right, wrong = (np.array([[on, 1.0]] * 40) for on in (1.0, 0.0))
    said = (
        {r.id: Prediction(r.id, "yes") for r in requests},
        {r.id: Prediction(r.id, "", "timed out") for r in requests},
    )
    found = find_flips("t", metric, requests, ("a", "b"), (right, wrong), said)
    assert len(found) == 40
    shown = examples(found, 4)
    assert [flip.question_type for flip in shown].count("single-query") == 2
    assert shown[0].control_answer == "(no answer: timed out)"
    assert "secret" not in dumps(shown)
    reports = [Request(id=str(i), kind="report", references=("sinus rhythm",)) for i in range(3)]
    rouge = get_metric("rouge.heartllm")
    texts = ("sinus rhythm", "sinus", "af")
    ours = {r.id: Prediction(r.id, text) for r, text in zip(reports, texts, strict=True)}
    theirs = {r.id: Prediction(r.id, "af") for r in reports}
    rows = tuple(rouge.matrix(list(part.values()), reports) for part in (ours, theirs))
    found = find_flips("t", rouge, reports, ("a", "b"), (rows[0], rows[1]), (ours, theirs))
    assert [(flip.id, flip.direction) for flip in found] == [("0", "up"), ("1", "up")]
    assert found[0].change == pytest.approx(100)


def seed_runs(make: Make, count: int) -> list[Path]:
    """Runs of models with different fingerprints."""
    folders = []
    for index in range(count):
        folder = make(f"s{index}", 3 + index)
        edit(folder / "run.json", lambda data, i=index: data["systems"]["model"].update(model={"fingerprint": f"f{i}"}))  # type: ignore[misc]
        folders.append(folder)
    return folders


def test_seeds_are_shown_one_by_one_and_few_have_no_interval(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = seed_runs(make, MIN_SEEDS + 2)
    groups = ["--seeds", "few=" + ",".join(map(str, runs[:2])), "--seeds", "many=" + ",".join(map(str, runs[2:]))]
    capsys.readouterr()
    assert command(monkeypatch, "compare", *groups, "--confidence_n", "100", "--format", "json") == 0
    record = json.loads(capsys.readouterr().out)
    scores = {(g["group"], g["slice"]): g for g in record["groups"] if g["metric"] == "exact_match.strict"}
    few, many = scores["few", "all"], scores["many", "all"]
    assert (few["low"], few["high"]) == (None, None)
    assert few["values"] == {"s0": pytest.approx(100 * 96 / 144), "s1": pytest.approx(75.0)}
    values = list(many["values"].values())
    assert len(values) == MIN_SEEDS
    half = t_quantile(0.975, MIN_SEEDS - 1) * np.std(values, ddof=1) / MIN_SEEDS**0.5
    assert (many["low"], many["high"]) == pytest.approx((np.mean(values) - half, np.mean(values) + half))
    assert record["differences"] == []
    assert command(monkeypatch, "compare", *groups, "--confidence_n", "100") == 0
    told = capsys.readouterr().out
    assert "66.7, 75.0" in told
    assert "66.7 to 75.0" in told
    assert f"No interval over fewer than {MIN_SEEDS} seeds" in told
    assert "few − many" in told
    assert re.search(r"0 of 10", told)


def test_t_interval_is_scipys() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    values = [61.2, 60.4, 62.0, 61.1, 59.8, 61.6]
    expected = scipy_stats.t.interval(0.9, len(values) - 1, np.mean(values), scipy_stats.sem(values))
    assert t_interval(values, 0.9) == pytest.approx(expected)
    assert t_interval(values[: MIN_SEEDS - 1], 0.9) is None


def test_one_model_is_no_two_seeds(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = seed_runs(make, 2)
    edit(runs[1] / "run.json", lambda data: data["systems"]["model"].update(model={"fingerprint": "f0"}))
    capsys.readouterr()
    assert command(monkeypatch, "compare", "--seeds", f"{runs[0]},{runs[1]}") == 2
    assert "hold the same model" in capsys.readouterr().err

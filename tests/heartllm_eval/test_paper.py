"""The paper's plan, its tables, claims and report, on small fake runs."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import DataError, UsageError
from heartllm_eval import cli, frozen
from heartllm_eval.comparison.pairs import Wanted, compare
from heartllm_eval.comparison.sides import Reader, parse_spec, with_labels
from heartllm_eval.models.controls import Majority
from heartllm_eval.paper import claims, evidence, plan, published, report, tables
from heartllm_eval.planning import RunSpec
from heartllm_eval.runner import run
from heartllm_eval.scoring import Options
from heartllm_eval.testing import Echo

FEW = Options(resamples=200)
PLAN = """
main = "ours"
[[size]]
name = "small"
about = "an invented model"
[[size.regime]]
name = "joint"
train = ["ptbxl"]
suites = ["invented_qa"]
[[size.regime]]
name = "away"
train = ["synthetic-a"]
suites = ["elsewhere_qa"]
[[row]]
name = "ours"
label = "Ours"
kind = "system"
recipe = "tiny"
seeds = 2
tables = ["table1_qa"]
[[row]]
name = "blind"
label = "Blind"
kind = "rival"
recipe = "tiny"
tables = ["table1_qa"]
[[row]]
name = "clip"
label = "CLIP"
kind = "rival"
recipe = "tiny"
regimes = ["joint", "away"]
tables = ["table1_qa"]
[[table]]
name = "table1_qa"
title = "Table 1"
suites = ["invented_qa", "elsewhere_qa"]
[[table.column]]
name = "verify"
metric = "exact_match.strict"
slice = "question_type=single-verify"
[[table.column]]
name = "all"
metric = "exact_match.strict"
"""


@pytest.fixture
def make(spec: RunSpec, tmp_path: Path) -> Callable[..., Path]:
    """Makes a run and freezes it as reports/runs/<row>/seed-<k>."""

    def build(row: str, number: int, wrong_every: int, suite: Any = None, **changes: Any) -> Path:
        chosen = replace(spec, output=tmp_path / "work" / f"{row}-{number}", **{"controls": True, **changes})
        if suite is not None:
            chosen = replace(chosen, suites=(suite,))
        run(
            chosen,
            lambda system, context: Majority(context) if system.kind == "majority" else Echo(wrong_every=wrong_every),
        )
        (tmp_path / "reports" / "runs" / "samples").mkdir(parents=True, exist_ok=True)
        frozen.freeze(chosen.output, tmp_path / "reports" / "runs" / row / f"seed-{number}")
        return chosen.output

    return build


@pytest.fixture
def small(tmp_path: Path) -> plan.Plan:
    path = tmp_path / "reports" / "paper.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(PLAN)
    return plan.load(path)


@pytest.fixture
def reports(small: plan.Plan, make: Callable[..., Path], tmp_path: Path) -> Path:
    """Two trainings of ours, one of a rival."""
    make("ours", 0, 9)
    make("ours", 1, 8)
    make("blind", 0, 3)
    return tmp_path / "reports"


def made(small: plan.Plan, reports: Path, **options: Any) -> tables.Made:
    runs = evidence.Runs(reports / "runs")
    return tables.make(small, small.tables[0], runs, published.Published(), options=FEW, **options)


def test_a_cell_is_the_mean_over_trainings_and_a_gap_is_paired(small: plan.Plan, reports: Path) -> None:
    block = made(small, reports).blocks[0]
    cell = block.cells["ours", "all"]
    # Of 144 questions 16 and 18 are wrong, and 48 of the rival's.
    assert cell.values == {0: pytest.approx(100 * 128 / 144), 1: pytest.approx(100 * 126 / 144)}
    assert cell.value == pytest.approx(100 * 127 / 144)
    assert (cell.n, cell.clusters) == (144, 24)
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low < cell.value < cell.high
    gap = block.gaps["blind", "all"]
    assert gap.value == pytest.approx(100 * (127 - 96) / 144)
    assert (gap.agreeing, gap.pairs) == (2, 2)
    assert gap.significant
    assert gap.p is not None
    assert gap.p_holm is not None
    assert gap.p_holm >= gap.p
    assert [group.label for group in block.groups] == ["Ours", "Blind", "majority"]
    assert block.missing == ("CLIP",)


def test_one_training_against_one_is_what_compare_says(
    small: plan.Plan, make: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [make("ours", 0, 5), make("blind", 0, 3)]
    block = made(small, tmp_path / "reports").blocks[0]
    specs = [parse_spec(str(folder)) for folder in folders]
    sides = with_labels([Reader().read(spec) for spec in specs], specs)
    theirs, _ = compare(sides, Wanted(options=FEW))
    for column, label in (("all", "all"), ("verify", "question_type=single-verify")):
        ours = block.gaps["blind", column]
        other = next(d for d in theirs.differences if (d.metric, d.slice) == ("exact_match.strict", label))
        for left, right in (
            (ours.value, other.value),
            (ours.low, other.low),
            (ours.high, other.high),
            (ours.p, other.p),
        ):
            assert left == pytest.approx(right, abs=1e-12)
        assert ours.test == other.test
        figure = next(
            f for f in theirs.figures if (f.system, f.metric, f.slice) == (sides[0].label, "exact_match.strict", label)
        )
        cell = block.cells["ours", column]
        assert (cell.value, cell.low, cell.high) == (
            pytest.approx(figure.value, abs=1e-12),
            pytest.approx(figure.low, abs=1e-12),
            pytest.approx(figure.high, abs=1e-12),
        )


def test_the_forms_agree(small: plan.Plan, reports: Path) -> None:
    table = made(small, reports)
    rows = list(csv.DictReader(table.csv().splitlines()))
    score = next(row for row in rows if (row["row"], row["column"], row["what"]) == ("ours", "all", "score"))
    assert float(score["value"]) == pytest.approx(100 * 127 / 144, rel=1e-5)
    assert score["seed_values"] == "0:88.8889 1:87.5"
    assert score["published"] == ""
    text = table.markdown()
    assert "88.2 [" in text
    assert "Not run yet: CLIP." in text
    assert "elsewhere_qa" in text.splitlines()[-1]
    assert "published" in text
    assert "Over the trainings: Ours " in text
    assert r"\begin{tabular}" in table.latex()


def test_rows_that_were_not_run_are_refused_on_demand(small: plan.Plan, reports: Path) -> None:
    with pytest.raises(UsageError, match=r"CLIP has no frozen run.*--only clip"):
        made(small, reports, complete=True)


@pytest.mark.parametrize("what", ["limit", "seed", "version", "signature", "suite"])
def test_runs_that_may_not_stand_side_by_side_are_refused(
    small: plan.Plan, make: Callable[..., Path], tmp_path: Path, spec: RunSpec, what: str
) -> None:
    make("ours", 0, 9, limit="60" if what == "seed" else None)
    changes: dict[str, Any] = {"limit": {"limit": "60"}, "seed": {"limit": "60", "seed": 4}}.get(what, {})
    suite = replace(spec.suites[0], version=2) if what == "version" else None
    make("blind", 0, 3, suite=suite, **changes)
    folder = tmp_path / "reports" / "runs" / "blind" / "seed-0" / "invented_qa"
    edit = {"signature": ("metrics", "exact_match.strict", "signature"), "suite": ("about", "dataset")}.get(what)
    if edit:
        _edit(folder, edit)
    messages = {
        "limit": "different suites: limit", "seed": "different samples", "version": "different suites: version",
        "signature": "scored in different ways", "suite": "different suites: dataset",
    }  # fmt: skip
    with pytest.raises(UsageError, match=messages[what]) as error:
        made(small, tmp_path / "reports")
    assert "freeze" in error.value.remedy


def _edit(folder: Path, place: tuple[str, ...]) -> None:
    """Changes a text of run.json, and the manifest with it."""
    import hashlib

    data = json.loads((folder / "run.json").read_text())
    part = data
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] += "x"
    (folder / "run.json").write_text(json.dumps(data))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["run.json"] = hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_metric_that_the_runs_do_not_have(small: plan.Plan, reports: Path) -> None:
    column = plan.Column("ranked", "exact_match.option_restricted")
    wrong = replace(small, tables=(replace(small.tables[0], columns=(column,)),))
    with pytest.raises(UsageError, match=r"not scored with 'exact_match\.option_restricted'"):
        made(wrong, reports)


def test_what_trainings_cost_is_told(small: plan.Plan, reports: Path) -> None:
    facts = {"parameters": 1_400_000, "training_tokens": 2_000_000, "steps": 100, "hours": 1.5, "device": "cpu"}
    for row, steps in (("ours", 100), ("blind", 140)):
        path = reports / "runs" / row / "seed-0" / "training-joint.json"
        path.write_text(json.dumps({**facts, "steps": steps}))
    text = made(small, reports).markdown()
    assert "| 1.4 M | 2 M | 1.5 |" in text
    assert "Budgets are not equal in optimiser steps: Ours 100, Blind 140." in text
    assert "Budgets are equal in training tokens to 5 %." in text


def test_published_numbers_need_their_provenance(small: plan.Plan, tmp_path: Path) -> None:
    path = tmp_path / "published.toml"
    entry = {
        "row": "ours", "suite": "invented_qa", "column": "all", "value": 61.5, "source": "A paper, 2025",
        "table": "table 2", "date": "2026-01-01", "by": "a reader", "protocol": "another",
    }  # fmt: skip

    def write(**changes: Any) -> None:
        parts = {**entry, **changes}
        path.write_text("[[score]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in parts.items()))

    assert published.load(path, small) == published.Published()
    write()
    found = published.load(path, small)
    assert found.of("ours", "invented_qa")[0].value == 61.5
    for change, message in (
        ({"source": " "}, "no source"),
        ({"row": "us"}, "unknown row"),
        ({"column": "F1"}, "unknown column"),
        ({"vaule": 1}, "unknown key"),
    ):
        write(**change)
        with pytest.raises(UsageError, match=message):
            published.load(path, small)


def test_published_numbers_stand_beside_ours(small: plan.Plan, reports: Path) -> None:
    score = published.Score(
        "ours", "invented_qa", "all", 61.5, "A paper", "table 2", "2026-01-01", "a reader", "theirs"
    )
    table = tables.make(
        small, small.tables[0], evidence.Runs(reports / "runs"), published.Published((score,)), options=FEW
    )
    assert "| all 61.5 |" in table.markdown()
    assert "A paper, table 2, copied 2026-01-01 by a reader" in table.markdown()


def test_the_report_is_the_same_again_and_its_check_sees_changes(
    small: plan.Plan, reports: Path, tmp_path: Path
) -> None:
    first = report.build(small, reports, reports, options=FEW)
    assert {path.as_posix() for path in first.files} >= {
        "tables/table1_qa.md",
        "tables/table1_qa.tex",
        "claims.md",
        "README.md",
    }
    report.build(small, reports, tmp_path / "again", options=FEW)
    for path in first.files:
        assert (reports / path).read_bytes() == (tmp_path / "again" / path).read_bytes()
    report.check(small, reports, options=FEW, say=lambda line: None)
    page = (reports / "README.md").read_text()
    assert "CLIP" in page
    assert "not measured yet" in page

    def wrong(match: str) -> None:
        with pytest.raises(DataError, match=match):
            report.check(small, reports, options=FEW, say=lambda line: None)

    table = reports / "tables" / "table1_qa.md"
    table.write_text(table.read_text().replace("88.2", "88.3"))
    wrong("tables/table1_qa.md differs")
    report.build(small, reports, reports, options=FEW)
    (reports / "tables" / "table9.md").write_text("old")
    wrong("tables/table9.md is left over")
    (reports / "tables" / "table9.md").unlink()
    (reports / "claims.md").unlink()
    wrong("claims.md is missing")


def test_the_report_without_any_run(small: plan.Plan, tmp_path: Path) -> None:
    report.build(small, tmp_path / "reports", tmp_path / "out", options=FEW)
    text = (tmp_path / "out" / "claims.md").read_text()
    assert text.count("not run yet") >= 8
    assert "Nothing that bears on the paper's claims was run yet." in (tmp_path / "out" / "README.md").read_text()


def test_figures_are_drawn_where_their_rows_are(reports: Path, small: plan.Plan, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from heartllm_eval.paper import figures

    shutil.copytree(reports / "runs" / "blind", reports / "runs" / "without_tab")
    row = replace(small.rows[1], name="without_tab", label="w/o TAB", kind="ablation")
    columns = tuple(
        replace(column, name=name) for column, name in zip(small.tables[0].columns, ("verify", "query"), strict=True)
    )
    more = replace(small, rows=(*small.rows, row), tables=(replace(small.tables[0], columns=columns),))
    parts = {"table1_qa": made(more, reports).blocks}
    entry = figures.FromTables("figure", "Figure", ("invented_qa", "other"))
    assert entry.ready(more, parts) == (more.main in {group.name for group in parts["table1_qa"][0].groups})
    figure, rows = entry.draw(more, parts)
    assert {row["system"] for row in rows} >= {"Ours", "w/o TAB"}
    gap = next(r for r in rows if r["what"] != "score" and r["metric"] == "query")
    assert gap["value"] == pytest.approx(-100 * 31 / 144)
    assert figure.axes


def claim(*states: str) -> claims.Claim:
    return claims.Claim("C0", "", "", tuple(claims.Finding(state, "", "") for state in states))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (("for", "for"), "holds here"),
        (("for", "open"), "cannot be told at this size"),
        (("open",), "cannot be told at this size"),
        (("for", "missing"), "not run in full"),
        (("missing", "missing"), "not run yet"),
        (("for", "against", "missing"), "does not hold here"),
    ],
)
def test_verdicts_follow_from_the_findings(states: tuple[str, ...], verdict: str) -> None:
    assert claim(*states).verdict == verdict


def test_claims_come_from_the_numbers(small: plan.Plan, reports: Path, tmp_path: Path) -> None:
    found = {claim.name: claim for claim in claims.judge(small, {"table1_qa": made(small, reports)}, tmp_path)}
    assert list(found) == [f"C{number}" for number in range(1, 9)]
    lead = [
        finding for finding in found["C2"].findings if "Ours less Blind" in finding.text and finding.state != "missing"
    ]
    assert [finding.state for finding in lead] == ["for"]
    assert found["C2"].verdict == "not run in full"
    assert found["C8"].verdict == "not run yet"


def test_claims_from_figure_data(tmp_path: Path) -> None:
    from heartllm_eval.paper import claim_data

    folder = tmp_path / "codec"
    folder.mkdir()
    head = "noise,snr_in,system,setting,snr_out,snr_out_low,snr_out_high\n"
    (folder / "denoising.csv").write_text(
        head + "muscle,10,codec,,12,11,13\nmuscle,0,codec,,3,2,4\nmuscle,10,DCT,324,9,8,10\nmuscle,0,DCT,324,5,4.5,6\n"
    )
    found = claim_data.denoising(tmp_path)
    assert [finding.state for finding in found] == ["for", "against"]
    assert "nearer to the clean ECG than the noisy one in 2" in found[0].text
    panels = tmp_path / "embeddings"
    panels.mkdir()
    for system, low, high in (("HeartLLM", 0.6, 0.7), ("TEST", 0.95, 0.99), ("untrained", 0.5, 0.65)):
        about = {"level": "input", "chance": 0.5}
        numbers = [
            {**about, "measure": "probe AUC", "value": (low + high) / 2, "low": low, "high": high},
            {**about, "measure": "kNN mixing", "value": 1 - low, "low": 1 - high, "high": 1 - low},
        ]
        (panels / f"{system}.json").write_text(json.dumps({"system": system, "numbers": numbers}))
    states = {finding.text.split(",")[0]: finding.state for finding in claim_data.mixing(tmp_path)}
    assert states["probe AUC of HeartLLM"] == "for"
    assert states["probe AUC of TEST"] == "for"
    assert states["probe AUC of untrained"] == "open"
    assert states["probe AUC of CLIP"] == "missing"
    assert states["kNN mixing of HeartLLM"] == "open"
    assert states["kNN mixing of TEST"] == "for"
    assert states["kNN mixing of untrained"] == "open"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('main = "ours"', 'main = "us"', "main is 'us'"),
        ('name = "clip"', 'name = "blind"', "'blind' comes twice"),
        ('regimes = ["joint", "away"]', 'regimes = ["nowhere"]', "no regime"),
        ('tables = ["table1_qa"]', 'tables = ["table7"]', "no table"),
        ("seeds = 2", "seeds = 0", "0 seeds"),
        ('label = "CLIP"', 'lable = "CLIP"', "Did you mean 'label'"),
        ('label = "CLIP"', 'label = "CLIP"\nfrontend = "later"', "no earlier row"),
    ],
)
def test_a_wrong_plan_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "paper.toml"
    assert old in PLAN
    path.write_text(PLAN.replace(old, new))
    with pytest.raises(UsageError, match=message):
        plan.load(path)


def test_the_commands(reports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["heartllm-eval", "report", "--plan", str(reports / "paper.toml"), *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    assert command() == 0
    assert (reports / "tables" / "table1_qa.csv").is_file()
    assert command("--check") == 0
    assert "are what the frozen runs say" in capsys.readouterr().err
    (reports / "claims.md").write_text("x")
    assert command("--check") == 1
    assert "claims.md differs" in capsys.readouterr().err
    assert command("--complete") == 2

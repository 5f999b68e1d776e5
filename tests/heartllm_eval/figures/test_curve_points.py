"""Points of curves: the frozen runs' own numbers, seeds averaged, unlike runs refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heartllm.errors import UsageError
from heartllm_eval import frozen
from heartllm_eval.figures.curve_points import merge, points
from heartllm_eval.figures.scores import Score, read_scores
from heartllm_eval.models.controls import Majority
from heartllm_eval.planning import RunSpec
from heartllm_eval.runner import run
from heartllm_eval.scoring import Options
from heartllm_eval.testing import Echo

FEW = Options(resamples=200)
Make = Callable[..., Path]


@pytest.fixture
def make(spec: RunSpec, tmp_path: Path) -> Make:
    """Makes a frozen run of a model that is wrong on every so manyth request."""

    def build(name: str, wrong_every: int) -> Path:
        chosen = replace(spec, output=tmp_path / name, controls=True)
        run(
            chosen,
            lambda system, context: Majority(context) if system.kind == "majority" else Echo(wrong_every=wrong_every),
        )
        (folder,) = frozen.freeze(chosen.output, tmp_path / "frozen" / name)
        return folder

    return build


def test_points_are_the_runs_figures(make: Make) -> None:
    part = frozen.read(make("a", 4))
    found = points([(500, part)], "HeartLLM", floor="majority", options=FEW)
    expected = {
        (figure.system, figure.slice): figure
        for figure in frozen.figures(part, options=FEW).figures
        if figure.metric == "exact_match.strict"
    }
    assert found
    assert {score.system for score in found} == {"HeartLLM", "majority"}
    for score in found:
        own = expected["model" if score.system == "HeartLLM" else "majority", f"question_type=single-{score.metric}"]
        assert score.value == pytest.approx(own.value)
        assert score.at == (500 if score.system == "HeartLLM" else None)
        if own.interval == "bootstrap":
            assert (score.low, score.high) == (pytest.approx(own.low), pytest.approx(own.high))


def test_runs_at_one_place_are_averaged(make: Make) -> None:
    one, two = frozen.read(make("a", 4)), frozen.read(make("b", 3))
    apart = {n: points([(500, part)], "HeartLLM", options=FEW) for n, part in enumerate((one, two))}
    found = points([(500, one), (1000, two), (500, two)], "HeartLLM", options=FEW)
    first = {score.metric: score for score in found if score.at == 500}
    for a, b in zip(apart[0], apart[1], strict=True):
        if a.at is not None:
            assert first[a.metric].value == pytest.approx((a.value + b.value) / 2)
            assert first[a.metric].seeds == 2
    assert {score.at for score in found} == {500, 1000}


def test_unlike_runs_and_none_are_refused(make: Make) -> None:
    one = frozen.read(make("a", 4))
    other = replace(one, about={**one.about, "dataset": "mimic"})
    with pytest.raises(UsageError, match="different suites"):
        points([(500, one), (1000, other)], "HeartLLM", options=FEW)
    with pytest.raises(UsageError, match="no run"):
        points([], "HeartLLM")


def test_systems_are_added_to_a_file_and_replaced_in_it(tmp_path: Path) -> None:
    path = merge(tmp_path / "data" / "learning.csv", [Score("HeartLLM", "verify", 1.0, at=10)])
    merge(path, [Score("HeartLLM", "BLEU-4", 5.0, at=10), Score("CLIP", "verify", 2.0, at=10)])
    merge(path, [Score("HeartLLM", "verify", 3.0, at=10), Score("HeartLLM", "verify", 4.0, at=20)])
    assert {(s.system, s.metric, s.at, s.value) for s in read_scores(path)} == {
        ("CLIP", "verify", 10, 2.0),
        ("HeartLLM", "BLEU-4", 10, 5.0),
        ("HeartLLM", "verify", 10, 3.0),
        ("HeartLLM", "verify", 20, 4.0),
    }


def test_the_command(make: Make, tmp_path: Path) -> None:
    import typer

    from heartllm_eval.commands import measure

    app = typer.Typer()
    measure.register(app)
    folder = make("a", 4)
    command = ["measure", "curve", "learning", "-o", str(tmp_path / "data"), "--confidence_n", "200"]
    told = CliRunner().invoke(app, [*command, "--run", f"1500={folder}"])
    assert told.exit_code == 0, told.output
    assert read_scores(tmp_path / "data" / "learning_synthetic.csv")[0].at == 1500
    for wrong in ("x", "0=y", "-1=y", "1=", "inf=y"):
        assert isinstance(CliRunner().invoke(app, [*command, "--run", wrong]).exception, UsageError)
    assert isinstance(CliRunner().invoke(app, ["measure", "curve", "bend", "-o", "x"]).exception, UsageError)

"""What is lost between hospitals: the parts add up, and each finds the cause that was put in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm.errors import DataError, UsageError
from heartllm_eval.commands import measure_loss
from heartllm_eval.comparison.sides import Side
from heartllm_eval.loss import PARTS, cell_of, measure, split_drop
from heartllm_eval.planning import RunSpec
from heartllm_eval.runner import run
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import Options, load_metrics
from heartllm_eval.testing import Echo


class Steady(Echo):
    """One model, however often it is wrong."""

    def __init__(self, wrong_every: int) -> None:
        super().__init__(wrong_every=wrong_every)

    def describe(self) -> Mapping[str, Any]:
        return {"fingerprint": "f"}


METRIC = load_metrics(["exact_match.strict"])
OPTIONS = Options(resamples=400)


def ask(number: int, attribute: str, answer: str, seen: str = "seen") -> Request:
    return Request(
        id=f"{number}-{attribute}", kind="qa", cluster=str(number), question=f"{attribute}?", template_id=1,
        question_type="single-verify", attribute=(attribute,), references=(answer,), slices={"answer_seen": seen},
    )  # fmt: skip


def side(requests: Sequence[Request], right: Callable[[Request], bool], mark: str = "m", task: str = "t") -> Side:
    said = {r.id: Prediction(r.id, r.references[0] if right(r) else "wrong") for r in requests}
    about: dict[str, Any] = {"model": {"fingerprint": mark}, "kind": "heartllm", "model_args": {}}
    return Side("model", Path(mark), "model", {task: {"kind": "qa"}}, {task: requests}, {task: said}, about=about)


def parts(home: Side, away: Side, **options: Any) -> dict[str, float]:
    found = measure(home, away, ("t", "t"), METRIC, OPTIONS, **options)
    assert [part.name for part in found.parts] == list(PARTS)
    return {part.name: part.value for part in found.parts}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_the_parts_add_up_whatever_the_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (2, 6)).astype(float)
    counts[:, 0] += 1  # one cell in common
    seen = np.array([1.0, *rng.integers(0, 2, 5)])
    sums = np.floor(counts * rng.uniform(0, 1, (2, 6)))
    found = split_drop((counts[0], sums[0]), (counts[1], sums[1]), seen)
    assert found[1:].sum() == pytest.approx(found[0], abs=1e-9)
    assert found[0] == pytest.approx(100 * (sums[0].sum() / counts[0].sum() - sums[1].sum() / counts[1].sum()))


def test_same_hospital_loses_nothing() -> None:
    one = side([ask(n, "a", "yes") for n in range(20)], lambda r: int(r.cluster) % 2 == 0)
    assert parts(one, one) == dict.fromkeys(PARTS, 0.0)


def test_case_mix_alone() -> None:
    """Question "a" is easy and "b" hard, at both; away asks more of "b"."""
    home = [ask(n, "a" if n < 30 else "b", "yes") for n in range(40)]
    away = [ask(n, "a" if n < 10 else "b", "yes") for n in range(40)]
    easy: Callable[[Request], bool] = lambda r: r.attribute == ("a",)  # noqa: E731
    found = parts(side(home, easy), side(away, easy))
    assert found["drop"] == found["case mix"] == pytest.approx(50)
    assert found["within"] == pytest.approx(0)


def test_within_alone_and_its_interval() -> None:
    asked = [ask(n, "a", "yes") for n in range(60)]
    home, away = side(asked, lambda r: True), side(asked, lambda r: int(r.cluster) % 3 > 0)
    found = measure(home, away, ("t", "t"), METRIC, OPTIONS)
    within = found.parts[-1]
    assert within.value == pytest.approx(100 / 3)
    assert within.low is not None
    assert within.high is not None
    assert 15 < within.low < within.value < within.high < 55
    assert found.common == (1.0, 1.0)
    assert found.parts[0].home == 100


def test_unseen_answers_alone() -> None:
    home = [ask(n, "a", "yes") for n in range(20)]
    away = [*home, *(ask(n, "a", "rare", "new class") for n in range(20, 30))]
    found = parts(side(home, lambda r: True), side(away, lambda r: r.references == ("yes",)))
    assert found["unseen answers"] == found["drop"] == pytest.approx(100 / 3)


def test_questions_of_one_hospital_only() -> None:
    home = [ask(n, "a", "yes") for n in range(20)] + [ask(n, "home", "yes") for n in range(20)]
    away = [ask(n, "a", "yes") for n in range(20)] + [ask(n, "away", "yes") for n in range(20)]
    found = parts(side(home, lambda r: r.attribute != ("a",)), side(away, lambda r: False))
    assert found["asked at home only"] == pytest.approx(50)
    assert found["asked away only"] == found["within"] == pytest.approx(0)


def test_cells_of_choices_leave_the_pair_out() -> None:
    choice = replace(ask(1, "x", "a"), question_type="single-choose", attribute=("a", "b"))
    assert cell_of(choice) == cell_of(replace(choice, attribute=("a", "c")))
    assert cell_of(ask(1, "x", "yes")) != cell_of(ask(1, "y", "yes"))
    assert cell_of(ask(1, "x", "yes")) != cell_of(ask(1, "x", "no"))


def test_variants_are_paired_by_sample() -> None:
    asked = [ask(n, "a", "yes") for n in range(40)]
    home, away = side(asked, lambda r: True), side(asked, lambda r: int(r.cluster) < 10)
    quiet = side(asked[:30], lambda r: int(r.cluster) < 20)
    found = measure(home, away, ("t", "t"), METRIC, OPTIONS, variants={"noise": quiet}).variants[0]
    assert found.n == 30
    assert found.value == pytest.approx(100 / 3)
    assert found.p is not None
    assert found.p < 0.05
    changed = [replace(request, references=("no",)) for request in asked]
    with pytest.raises(DataError, match="no sample of t is in all of them"):
        parts(home, away, variants={"other answers": side(changed, lambda r: True)})


def test_what_cannot_be_split_is_refused() -> None:
    asked = [ask(n, "a", "yes") for n in range(20)]
    home = side(asked, lambda r: True)
    with pytest.raises(UsageError, match="two models"):
        parts(home, side(asked, lambda r: True, mark="other"))
    with pytest.raises(UsageError, match="did not run t"):
        parts(home, home, variants={"x": side(asked, lambda r: True, task="u")})
    with pytest.raises(UsageError, match="no mean over samples"):
        measure(home, home, ("t", "t"), load_metrics(["labels.strict"]), OPTIONS)
    report = replace(home, tasks={"t": {"kind": "report"}})
    with pytest.raises(UsageError, match="one is questions, one reports"):
        measure(home, report, ("t", "t"), METRIC, OPTIONS)


def test_the_command_prints_and_writes_what_was_measured(
    spec: RunSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two run folders of one model and a variant, in every form of the tables."""
    for name, wrong in (("home", 8), ("away", 2), ("variant", 4)):
        model = Steady(wrong)
        run(replace(spec, output=tmp_path / name), lambda system, context, model=model: model)  # type: ignore[misc]
    places = [str(tmp_path / "home"), f"{tmp_path / 'away'}:invented_qa"]
    for form in ("text", "markdown", "csv", "json", "latex"):
        measure_loss.loss(
            places[0], places[1], tmp_path / "data", [f"noise={tmp_path / 'variant'}"], confidence_n=200, format=form
        )
        told = capsys.readouterr().out
        assert all(name in told for name in ("unseen answers", "case mix", "within", "noise"))
        assert "37.5" in told
        assert "25.0" in told
    found = json.loads((tmp_path / "data" / "loss" / "invented_qa-to-invented_qa.json").read_text())
    assert [part["name"] for part in found["parts"]] == list(PARTS)
    assert found["variants"][0]["value"] == pytest.approx(25)
    for cause, message in (("x=nowhere", "no such folder"), ("noise", "not CAUSE=RUN")):
        with pytest.raises(UsageError, match=message):
            measure_loss.loss(places[0], places[1], tmp_path / "data", [cause])


def test_reports_lose_words_and_content() -> None:
    def reports(text: str) -> Side:
        asked = [
            Request(
                id=str(n),
                kind="report",
                cluster=str(n),
                question_type="report",
                references=("sinus rhythm normal ecg",),
            )
            for n in range(12)
        ]
        made = side(asked, lambda r: True)
        said = {r.id: Prediction(r.id, text) for r in asked}
        return replace(made, tasks={"t": {"kind": "report"}}, predictions={"t": said})

    same, other = reports("sinus rhythm normal ecg"), reports("normal ecg with sinus rhythm")
    metrics = load_metrics(["rouge.heartllm"])
    found = measure(same, other, ("t", "t"), metrics, OPTIONS)
    assert {part.name for part in found.parts} >= {"rouge.heartllm/rougeL_f"} or len(found.parts) > 2
    assert all(part.home is not None and part.home > 99 for part in found.parts)
    assert max(part.value for part in found.parts) > 20

"""Curves over the strength of a perturbation: what is run, how it is paired, and what is drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import DataError, UsageError
from heartllm_eval.models import base
from heartllm_eval.ood import CURVES, Measured, measure, read, read_curve, rows, strength_of, write
from heartllm_eval.planning import RunSpec
from heartllm_eval.runner import run
from heartllm_eval.schema import RunRecord
from heartllm_eval.testing import Echo

WRONG = {"noise=white:20dB": 4, "noise=white:0dB": 2, "swap=LA-RA": 3}


@pytest.fixture
def measured(spec: RunSpec) -> Measured:
    """A model that is right on 7 of 8 requests, and on fewer under each perturbation."""

    def asked(part: RunSpec, workspace: Any = None) -> RunRecord:
        wrong = WRONG[part.perturb[0]] if part.perturb else 8
        return run(part, lambda system, context: Echo(wrong_every=wrong), workspace)

    spec = replace(spec, model_args={})
    return measure(spec, ["noise=20dB,0dB", "swap=RA-LA"], "HeartLLM", run=asked, say=lambda text: None)


def test_curves_are_texts_of_perturb() -> None:
    steps = ["noise=muscle:20dB", "noise=muscle:10dB", "noise=white:5dB"]
    assert read_curve("noise=muscle:20dB,10dB,white:5dB") == [
        *zip(["noise=muscle", "noise=muscle", "noise=white"], steps, strict=True)
    ]  # fmt: skip
    assert read_curve("swap=LA-RA") == [("swap", "swap=LA-RA")]
    assert len([step for text in CURVES for step in read_curve(text)]) > 30
    with pytest.raises(UsageError, match="no perturbation"):
        read_curve("wobble=1,2")


@pytest.mark.parametrize(
    ("text", "number"),
    [("noise=muscle:-10dB", -10), ("gain=0.25", 0.25), ("resample=62.5Hz", 62.5), ("baseline=0.3mV", 0.3),
     ("swap=LA-RA", None), ("missing=V1", None), ("channels=V1-V2", None)],
)  # fmt: skip
def test_strengths(text: str, number: float | None) -> None:
    assert strength_of(text) == number


def test_each_point_is_paired_with_the_clean_run(measured: Measured, spec: RunSpec) -> None:
    assert measured.levels["clean"][0] == pytest.approx(87.5)
    points = {(point.curve, point.value): point for point in measured.points if point.slice == "all"}
    assert list(points) == [("noise=white", "white:20dB"), ("noise=white", "white:0dB"), ("swap", "LA-RA")]
    loud = points["noise=white", "white:0dB"]
    assert (loud.strength, loud.score, loud.change) == (0.0, 50.0, -37.5)
    assert loud.p is not None
    assert loud.p_holm is not None
    assert loud.p <= loud.p_holm
    assert loud.change_low is not None
    assert loud.change_low < -37.5
    by_type = [point for point in measured.points if point.slice.startswith("question_type=")]
    assert len(by_type) == 9
    assert all(point.p_holm is None for point in by_type)
    assert sorted(path.name for path in spec.output.iterdir()) == [
        "clean", "noise-white-0dB", "noise-white-20dB", "swap-LA-RA",
    ]  # fmt: skip
    assert json.loads((spec.output / "swap-LA-RA" / "run.json").read_text())["config"]["perturb"] == ["swap=LA-RA"]


def test_data_file_and_rows(measured: Measured, tmp_path: Path) -> None:
    path = write(measured, tmp_path)
    assert path.name == "heartllm-invented_qa.json"
    assert read(path) == Measured(**{**measured.__dict__, "points": measured.points})
    before = path.read_bytes()
    assert write(read(path), tmp_path).read_bytes() == before
    table = rows([measured])
    assert len({tuple(row) for row in table}) == 1
    assert table[0]["value"] == "clean"
    for wrong in ("{}", "[]", '{"schema": 2}', "x"):
        path.write_text(wrong)
        with pytest.raises(DataError, match="measure shift again"):
            read(path)


def test_the_figure(measured: Measured) -> None:
    pytest.importorskip("matplotlib")
    from heartllm_eval.figures.ood import draw_ood
    from heartllm_eval.figures.style import FONT, smallest_font

    figure = draw_ood(measured)
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["a  noise", "b  leads and electrodes"]
    line = next(line for line in shown[0].lines if line.get_gid() == "noise=white")
    assert list(line.get_xdata()) == [0.0, 20.0]  # type: ignore[arg-type]
    assert shown[0].xaxis_inverted()
    assert smallest_font(figure) >= FONT
    assert any("synthetic" in text.get_text() for text in figure.texts)
    with pytest.raises(DataError, match="nothing was measured"):
        draw_ood(replace(measured, points=[]))


def test_one_suite_at_a_time(spec: RunSpec) -> None:
    with pytest.raises(UsageError, match="2 suites"):
        measure(replace(spec, suites=spec.suites * 2), CURVES, "x", run=run, say=lambda text: None)


def test_the_command_reaches_the_measurement(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, with a control as the model: gold never loses anything."""
    from heartllm_eval.commands import measure_shift

    monkeypatch.setattr(measure_shift, "chosen_suites", lambda tasks, include: list(spec.suites))
    assert "gold" in base.known_kinds()
    measure_shift.shift(
        "gold", ["t"], tmp_path / "data", tmp_path / "runs", curve=["gain=2"], control="none", confidence_n=200
    )
    told = capsys.readouterr().out
    assert "gain 2" in told
    assert "100.0" in told
    assert (tmp_path / "data" / "ood" / "heartllm-invented_qa.json").is_file()

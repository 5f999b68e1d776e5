"""Which controls stand beside a model: the defaults, the named ones, and what cannot be had."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from heartllm.errors import UsageError
from heartllm_eval import runner
from heartllm_eval.models import base
from heartllm_eval.planning import RunSpec
from heartllm_eval.systems import CONTROLS, System, parse_controls, with_controls


def names(
    kind: str, *, controls: bool = True, chosen: str | None = None, blind: Path | None = None, **args: str
) -> str:
    systems = with_controls(
        kind,
        args,
        controls=controls,
        names=parse_controls(chosen) if chosen else None,
        blind=blind,
        warn=lambda _: None,
    )
    assert systems[0].kind == kind
    return " ".join(system.name for system in systems[1:])


def test_default_controls_are_cheap_where_money_is_at_stake() -> None:
    assert names("hf", model="x") == "majority blind shuffled"
    assert names("authors", codec="x", llm="y", backbone="z") == "majority blind shuffled"
    assert names("openai", base_url="x", model="y") == "majority"
    assert names("predictions", path="x") == "majority"
    assert names("some-plug-in") == "majority"
    assert names("majority") == ""
    assert names("hf", controls=False, model="x") == ""
    assert names("hf", model="x", ecg="none") == "majority"


def test_named_controls_are_exactly_these_in_a_fixed_order(tmp_path: Path) -> None:
    assert parse_controls("gold, majority") == ("majority", "gold")
    assert names("openai", chosen="shuffled,blind", base_url="x", model="y") == "blind shuffled"
    assert names("hf", chosen="all", model="x") == " ".join(CONTROLS)
    assert names("predictions", chosen="all", path="x") == "majority constant retrieval gold"
    assert names("hf", chosen="none", model="x") == ""
    (tmp_path / "blind").mkdir()
    assert names("heartllm", chosen="all", checkpoint=str(tmp_path)) == " ".join(CONTROLS)
    assert names("heartllm", chosen="all", checkpoint="nowhere") == "majority constant retrieval shuffled gold"


def test_the_models_own_controls() -> None:
    asked = {"model": "x", "dtype": "float32"}
    found = with_controls("hf", asked, controls=True, names=None, blind=None, warn=lambda _: None)
    assert found[2:] == [
        System("blind", "hf", {**asked, "ecg": "none"}),
        System("shuffled", "hf", {**asked, "ecg": "shuffled"}),
    ]


def test_controls_that_cannot_be_had_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--control shuffled: predictions takes no argument 'ecg'"):
        names("predictions", chosen="majority,shuffled", path="x")
    with pytest.raises(UsageError, match="nowhere/blind is absent"):
        names("heartllm", chosen="blind", checkpoint="nowhere")
    with pytest.raises(UsageError, match="--blind"):
        names("heartllm", blind=tmp_path / "none", checkpoint="nowhere")
    with pytest.raises(UsageError, match="asked with ecg=shuffled"):
        names("hf", chosen="blind", model="x", ecg="shuffled")
    with pytest.raises(UsageError, match="Did you mean 'retrieval'"):
        parse_controls("retreival")


class Listening:
    """Says which ECGs it was to be shown."""

    def __init__(self, context: base.Context, *, ecg: str = "true") -> None:
        self.ecg = ecg

    def describe(self) -> dict[str, str]:
        return {"ecg": self.ecg}

    def predict(self, requests, task):  # type: ignore[no-untyped-def]
        from heartllm_eval.schema import Prediction

        for request in requests:
            yield Prediction(request.id, self.ecg)


def test_every_control_reaches_the_table(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from heartllm_eval.models.retrieval import GROUP_SIZES, Retrieval

    monkeypatch.setitem(base.BUILT_IN, "listening", f"{__name__}:Listening")
    monkeypatch.setattr(
        base, "adapter_class", lambda kind, real=base.adapter_class: Listening if kind == "listening" else real(kind)
    )
    monkeypatch.setattr(
        Retrieval, "vector", lambda self, recording: np.full(sum(GROUP_SIZES), float(len(recording[1])))
    )
    record = runner.run(replace(spec, model="listening", control_names=CONTROLS))
    values = {
        figure.system: figure.value
        for figure in record.figures
        if figure.slice == "all" and figure.metric == "exact_match.strict"
    }
    assert list(values) == ["model", *CONTROLS]
    assert values["gold"] == 100
    assert values["model"] == values["shuffled"] == 0
    assert {part.control for part in record.differences} == set(CONTROLS)
    text = (spec.output / "results.md").read_text(encoding="utf-8")
    assert all(f"{name}" in text for name in CONTROLS)
    samples = (spec.output / spec.suites[0].name / "shuffled" / "samples.jsonl").read_text(encoding="utf-8")
    assert {json.loads(line)["prediction"]["text"] for line in samples.splitlines()} == {"shuffled"}

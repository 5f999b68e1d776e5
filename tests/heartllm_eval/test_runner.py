from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import DataError, UsageError
from heartllm_eval import files
from heartllm_eval.models import base
from heartllm_eval.models.controls import Majority
from heartllm_eval.planning import RunSpec, System
from heartllm_eval.runner import run
from heartllm_eval.samples import SampleLog, read_samples
from heartllm_eval.schema import Prediction, Request, Sample
from heartllm_eval.testing import Echo, invented_requests


def using(model: base.Adapter) -> Callable[[System, base.Context], base.Adapter]:
    return lambda system, context: Majority(context) if system.kind == "majority" else model


def stored(spec: RunSpec, name: str = "run.json") -> dict[str, Any]:
    return dict(json.loads((spec.output / name).read_text(encoding="utf-8")))


def samples(spec: RunSpec, system: str = "model") -> Path:
    return spec.output / "invented_qa" / system / "samples.jsonl"


def scores(record: dict[str, Any]) -> Any:
    return record["figures"], record["differences"]


def test_a_whole_run(spec: RunSpec) -> None:
    record = run(replace(spec, controls=True), using(Echo()))
    assert record.status == "done"
    lines = samples(spec).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 144
    overall = {(f.system, f.metric, f.slice): f for f in record.figures}["model", "exact_match.strict", "all"]
    assert overall.value == pytest.approx(75.0)
    assert (overall.n, overall.clusters) == (144, 24)
    assert overall.low is not None
    assert overall.high is not None
    assert overall.low < overall.value < overall.high
    assert {d.slice for d in record.differences} == {
        "all",
        *(f"question_type={t}" for t in ("single-verify", "single-choose", "single-query")),
    }
    assert all(
        d.control == "majority" and d.p_holm is not None and d.p is not None and d.p_holm >= d.p
        for d in record.differences
    )
    told = stored(spec)
    assert told["status"] == "done"
    assert told["config"]["systems"]["model"]["kind"] == "echo"
    assert told["tasks"]["invented_qa"]["patients"] == 24
    assert told["versions"]["numpy"]
    assert told["hardware"]["cores"] >= 1
    assert told["peak_memory_mb"] > 0
    assert set(told["signatures"]) >= {"exact_match.strict", "exact_match.official_llm", "exact_match.heartllm"}


def test_the_tables_say_what_they_are(spec: RunSpec) -> None:
    run(replace(spec, controls=True, limit="0.5"), using(Echo()))
    text = (spec.output / "results.md").read_text(encoding="utf-8")
    assert "Invented questions (synthetic recordings, derived questions)" in text
    assert "`metric:exact_match|variant:strict|" in text
    assert "bootstrap by patient (24 patients, 200 resamples)" in text
    assert "--limit 0.5" in text
    assert "model − majority" in text
    header = next(line for line in text.splitlines() if line.startswith("| system |"))
    assert [part.split(" ")[0] for part in header.strip("| ").split(" | ")] == [
        "system",
        "verify",
        "choose",
        "query",
        "all",
    ]


def test_no_patient_id_is_written(spec: RunSpec) -> None:
    run(spec, using(Echo()))
    sample = json.loads(samples(spec).read_text(encoding="utf-8").splitlines()[0])
    assert sample["request"]["cluster"] == invented_requests("test")[0].cluster
    assert "patient" not in json.dumps(sample)


@pytest.mark.parametrize("crash_after", [0, 1, 50, 143])
def test_a_crashed_run_is_continued(spec: RunSpec, tmp_path: Path, crash_after: int) -> None:
    whole = replace(spec, output=tmp_path / "whole")
    run(whole, using(Echo()))
    with pytest.raises(RuntimeError):
        run(spec, using(Echo(crash_after=crash_after)))
    assert stored(spec)["status"] == "error"
    assert "pulled the plug" in stored(spec)["error"]
    if samples(spec).stat().st_size:
        with samples(spec).open("ab") as stream:  # the kill came in the middle of a line
            stream.write(b'{"request": {"id": "test0v0')
    second = Echo()
    run(spec, using(second))
    assert len(second.asked) == 144 - crash_after
    assert scores(stored(spec)) == scores(stored(whole))
    assert stored(spec)["resumed"] == 1
    assert samples(spec).read_bytes() == samples(whole).read_bytes()


def test_a_finished_run_is_not_asked_again(spec: RunSpec) -> None:
    run(spec, using(Echo()))
    before = scores(stored(spec))
    again = Echo()
    run(spec, using(again))
    assert again.asked == []
    assert scores(stored(spec)) == before


class Unreachable(Echo):
    """Fails on the first twenty requests."""

    def predict(self, requests: Sequence[Request], task: base.Task) -> Iterator[Prediction]:
        for number, part in enumerate(super().predict(requests, task)):
            yield Prediction(part.id, "", error="server down") if number < 20 else part


def test_what_failed_is_asked_again_by_the_next_start(spec: RunSpec, tmp_path: Path) -> None:
    whole = replace(spec, output=tmp_path / "whole")
    run(whole, using(Echo()))
    with pytest.raises(DataError, match="20 of 144 requests failed"):
        run(spec, using(Unreachable()))
    second = Echo()
    assert run(spec, using(second)).status == "done"
    assert len(second.asked) == 20
    assert samples(spec).read_bytes() == samples(whole).read_bytes()
    assert scores(stored(spec)) == scores(stored(whole))


def test_a_run_continued_by_other_code_says_so(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartllm_eval.provenance.source", lambda: {"commit": "a" * 40, "dirty": False})
    with pytest.raises(RuntimeError):
        run(spec, using(Echo(crash_after=50)))
    run(spec, using(Echo(crash_after=144)))
    settings = stored(spec)["settings"]
    assert not any("other code" in note for note in settings["notes"])  # the same code went on
    monkeypatch.setattr("heartllm_eval.provenance.source", lambda: {"commit": "b" * 40, "dirty": True})
    for _ in range(2):
        run(spec, using(Echo()))
    told = stored(spec)
    assert told["source"]["commit"] == "b" * 40
    assert [part["source"]["commit"][0] for part in told["settings"]["earlier_code"]] == ["a", "b"]
    assert any("begun by other code" in note for note in told["settings"]["notes"])


def test_a_run_is_not_continued_on_other_recordings(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"ptbxl": {"tables": "a" * 64, "recordings": 48, "recordings_hash": "b" * 64}}
    monkeypatch.setattr("heartllm_eval.provenance.data", lambda workspace, planned: about)
    run(spec, using(Echo()))
    before = (spec.output / "run.json").read_bytes()
    about = {"ptbxl": {**about["ptbxl"], "recordings_hash": "c" * 64}}
    with pytest.raises(UsageError, match="the recordings of ptbxl have changed"):
        run(spec, using(Echo()))
    assert (spec.output / "run.json").read_bytes() == before


def test_ctrl_c_leaves_an_interrupted_run(spec: RunSpec) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(spec, using(Echo(crash_after=5, error=KeyboardInterrupt)))
    assert stored(spec)["status"] == "interrupted"
    assert len(list(read_samples(samples(spec)))) == 5


def test_another_configuration_is_refused_with_the_difference_and_leaves_no_trace(spec: RunSpec) -> None:
    run(spec, using(Echo()))
    before = (spec.output / "run.json").read_bytes()
    with pytest.raises(UsageError, match=r"limit: None -> 10"):
        run(replace(spec, limit="10"), using(Echo()))
    with pytest.raises(UsageError, match=r"wrong_every: 4 -> 5"):
        run(spec, using(Echo(wrong_every=5)))
    with pytest.raises(UsageError, match="--limit"):
        run(replace(spec, limit="0"), using(Echo()))
    assert (spec.output / "run.json").read_bytes() == before


def test_an_output_folder_that_cannot_be_written_to(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write there"):
        run(replace(spec, output=tmp_path / "file" / "run"), using(Echo()))


def test_a_full_disk_keeps_what_was_done(spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    append, count = SampleLog.append, 0

    def full(self: SampleLog, sample: Sample) -> None:
        nonlocal count
        count += 1
        if count > 7:
            raise OSError(28, "No space left on device")
        append(self, sample)

    monkeypatch.setattr(SampleLog, "append", full)
    with pytest.raises(DataError, match="No space left on device"):
        run(spec, using(Echo()))
    assert stored(spec)["status"] == "error"
    assert len(list(read_samples(samples(spec)))) == 7


class Faulty(Echo):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def predict(self, requests: Sequence[Request], task: base.Task) -> Iterator[Prediction]:
        for index, request in enumerate(requests):
            if self.fault == "lazy" and index == 3:
                return
            if self.fault == "failing" and index % 10 == 0:
                yield Prediction(request.id, "", error="the .dat file is short")
            else:
                yield Prediction(request.id, "yes")
            if self.fault == "double" and index == 3:
                yield Prediction(request.id, "no")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("lazy", "left 141 requests unanswered"),
        ("double", "twice or unasked"),
        ("failing", r"15 of 144 requests failed.*short"),
    ],
)
def test_faulty_adapters_are_named(spec: RunSpec, fault: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(spec, using(Faulty(fault)))


def test_answers_in_any_order_give_the_same_scores(spec: RunSpec, tmp_path: Path) -> None:
    class Backwards(Echo):
        def predict(self, requests: Sequence[Request], task: base.Task) -> Iterator[Prediction]:
            yield from super().predict(requests[::-1], task)

    run(spec, using(Echo()))
    other = replace(spec, output=tmp_path / "other")
    run(other, using(Backwards()))
    assert scores(stored(other)) == scores(stored(spec))


def test_predict_only_then_score(spec: RunSpec, tmp_path: Path) -> None:
    whole = replace(spec, output=tmp_path / "whole", controls=True)
    run(whole, using(Echo()))
    record = run(replace(spec, controls=True, predict_only=True), using(Echo()))
    assert record.status == "predicted"
    assert record.figures == ()
    files.rescore(spec.output, verbosity=0)
    assert stored(spec)["status"] == "done"
    assert scores(stored(spec)) == scores(stored(whole))
    assert stored(spec)["settings"]["rescored"]


def test_rescoring_refuses_an_unfinished_run(spec: RunSpec) -> None:
    with pytest.raises(RuntimeError):
        run(spec, using(Echo(crash_after=100)))
    with pytest.raises(DataError, match="44 samples are missing"):
        files.rescore(spec.output, verbosity=0)


def test_a_broken_line_in_the_middle_is_named(spec: RunSpec) -> None:
    run(spec, using(Echo()))
    lines = samples(spec).read_bytes().splitlines(keepends=True)
    samples(spec).write_bytes(b"".join([*lines[:3], b"{broken\n", *lines[4:]]))
    with pytest.raises(DataError, match=r"samples\.jsonl, line 4: not a sample"):
        run(spec, using(Echo()))


def test_controls_of_a_heartllm_checkpoint(spec: RunSpec, tmp_path: Path) -> None:
    from heartllm_eval.planning import systems_of

    warnings: list[str] = []
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    asked = replace(spec, model="heartllm", model_args={"checkpoint": str(checkpoint)}, controls=True)
    assert [system.name for system in systems_of(asked, warnings.append)] == ["model", "majority", "shuffled"]
    assert "no blind control" in warnings[0]
    (checkpoint / "blind").mkdir()
    systems = {system.name: system for system in systems_of(asked, warnings.append)}
    assert list(systems) == ["model", "majority", "blind", "shuffled"]
    assert systems["blind"].model_args == {"checkpoint": str(checkpoint / "blind"), "ecg": "none"}
    assert systems["shuffled"].model_args["ecg"] == "shuffled"
    with pytest.raises(UsageError, match="--blind"):
        systems_of(replace(asked, blind=tmp_path / "nowhere"), warnings.append)

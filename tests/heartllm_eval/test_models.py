from __future__ import annotations

import csv
import json
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from heartllm.errors import DataError, HeartLLMError, UsageError
from heartllm_eval.models import base
from heartllm_eval.models.controls import Constant, Gold, Majority
from heartllm_eval.models.heartllm import HeartLLM, _responder, by_recording, shuffled_recordings
from heartllm_eval.models.predictions import Predictions, read_predictions
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.testing import invented_requests

CONTEXT = base.Context(Workspace())


def task(requests: Sequence[Request], training: Sequence[Request] = ()) -> base.Task:
    return base.Task("t", requests[0].kind, requests, training=lambda: training)


def texts(adapter: base.Adapter, requests: Sequence[Request], training: Sequence[Request] = ()) -> list[str]:
    found = {prediction.id: prediction.text for prediction in adapter.predict(requests, task(requests, training))}
    return [found[request.id] for request in requests]


def ask(number: int, question: str, *answer: str, **more: Any) -> Request:
    return Request(str(number), "qa", question=question, references=answer, question_type="single-verify", **more)


def test_majority_goes_from_question_to_type() -> None:
    training = [
        *(ask(i, "Is it A?", "yes", template_id=1, attribute=("a",)) for i in range(3)),
        *(ask(i, "Is it B?", "no", template_id=1, attribute=("b",)) for i in range(5)),
        *(ask(i, "Where?", "lead I", "lead V1", template_id=2) for i in range(9)),
    ]
    asked = [
        ask(10, "Is it A?", template_id=1, attribute=("a",)),
        ask(11, "Might it be A?", template_id=1, attribute=("a",)),  # another wording of a known question
        ask(12, "Is it C?", template_id=1, attribute=("c",)),  # the template's majority
        ask(13, "Something else?", template_id=9),  # the type's majority
        ask(14, "Yes or no?", template_id=9, options=("no", "yes")),  # whose first answers are no options here
    ]
    assert texts(Majority(CONTEXT), asked, training) == ["yes", "yes", "no", "lead I; lead V1", "no"]


def test_majority_decides_ties_by_the_template() -> None:
    training = [
        *(ask(i, "A or B?", answer, template_id=4, attribute=("a", "b")) for i, answer in enumerate(("a", "none"))),
        *(ask(i, "C or D?", "none", template_id=4, attribute=("c", "d")) for i in range(4)),
    ]
    asked = [ask(10, "A or B?", template_id=4, attribute=("a", "b"), options=("a", "b"))]
    assert texts(Majority(CONTEXT), asked, training) == ["none"]


def test_majority_of_reports_is_the_commonest_one() -> None:
    reports = [Request(str(i), "report", references=(text,)) for i, text in enumerate(["b", "a", "a", "c", "b"])]
    assert texts(Majority(CONTEXT), reports[:1], reports) == ["a"]


def test_gold_and_constant() -> None:
    requests = [ask(1, "?", "a", "b"), ask(2, "?", "c")]
    assert texts(Gold(CONTEXT), requests) == ["a; b", "c"]
    assert texts(Constant(CONTEXT, text="no"), requests) == ["no", "no"]
    training = [ask(i, "?", answer) for i, answer in enumerate(("b", "a", "a", "b", "c"))]
    assert texts(Constant(CONTEXT), requests, training) == ["a", "a"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", "-map.json", ".csv"])
def test_predictions_are_read_in_every_format(tmp_path: Path, suffix: str) -> None:
    said = {"1": "yes", "2": 'a, "b"\nc', "3": ""}
    path = tmp_path / f"said{suffix}"
    rows = [{"id": key, "prediction": text} for key, text in said.items()]
    if suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["id", "prediction"])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".jsonl":
        path.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    else:
        path.write_text(json.dumps(said if "map" in suffix else rows), encoding="utf-8")
    found = read_predictions(path, list(said)).predictions
    assert {key: prediction.text for key, prediction in found.items()} == said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": "1", "prediction": "yes"}\n{"id": "2", "pred', r"line 2: not valid JSON \(.*column"),
        ('{"id": "1", "prediction": 3}', r"line 1: 'prediction' must be text, not int \(3\)"),
        ('{"id": "1", "prediction": null}', "must be text, not NoneType"),
        ('{"id": "1", "prediction": ["a", 1]}', "must be text, not list"),
        ('{"prediction": "yes"}', "line 1: the row has no 'id'"),
        ('{"id": true, "prediction": "yes"}', "the row has no 'id'"),
        ('{"id": "1"}', "the row has no 'prediction'"),
        ("[1]", "a row must be an object, not list"),
        ('{"id": "1", "prediction": "a"}\n' * 2, "1 id comes twice: 1"),
        ('{"id": "7", "prediction": "a"}', r"its one id was not asked for \(it has 7\)"),
        ("", "said.jsonl: holds no predictions"),
        ('{"id": "1", "prediction": "yes"}\n{"id": "2", "prediction":\n', "line 2: .*column 26"),
        ("[" * 100_000, "not valid JSON|nested too deep"),
    ],
)
def test_bad_predictions_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path, ["1", "2"])
    assert "said.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,prediction\n1,a,b\n", "line 2: another number of columns"),
        ("a.csv", b"id,prediction\n1\n", "line 2: another number of columns"),
        ("a.csv", b"id;prediction\n1;a\n", "line 1: the header has no 'id', only 'id;prediction'"),
        ("a.csv", b"", "holds no predictions"),
        ("a.csv", b"id,prediction\n", "holds no predictions"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8"),
        ("a.json", b'"text"', "neither a list of rows nor an object"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / name, ["1"])


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_predictions(tmp_path / "none.jsonl", ["1"])
    with pytest.raises(DataError, match="this is a folder"):
        read_predictions(tmp_path, ["1"])


def test_missing_and_extra_ids_are_listed_and_missing_ones_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    rows = [{"id": str(i), "prediction": "yes"} for i in (1, *range(100, 115))]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    warnings: list[str] = []
    requests = [ask(i, "?", "yes") for i in (1, 2, 3)]
    adapter = Predictions(replace(CONTEXT, warn=warnings.append), path=str(path))
    found = list(adapter.predict(requests, task(requests)))
    assert [(prediction.text, prediction.error is None) for prediction in found] == [
        ("yes", True),
        ("", False),
        ("", False),
    ]
    assert "2 ids have no prediction: 2, 3" in warnings[0]
    assert "15 ids were not asked for" in warnings[1]
    assert "109 and 5 more" in warnings[1]
    with pytest.raises(DataError, match="2 ids have no prediction"):
        list(Predictions(CONTEXT, path=str(path), missing="error").predict(requests, task(requests)))
    with pytest.raises(UsageError, match="missing='maybe'"):
        Predictions(CONTEXT, path=str(path), missing="maybe")


def test_model_args() -> None:
    assert base.parse_model_args("checkpoint=a/b=c, ecg=none,") == {"checkpoint": "a/b=c", "ecg": "none"}
    with pytest.raises(UsageError, match="'ecg' is not of the form k=v"):
        base.parse_model_args("ecg")
    with pytest.raises(UsageError, match="twice"):
        base.parse_model_args("a=1,a=2")


def test_creating_adapters_tells_what_is_wrong() -> None:
    assert isinstance(base.create("constant", {"text": "x"}, CONTEXT), Constant)
    with pytest.raises(UsageError, match="Did you mean 'majority'"):
        base.create("majorty", {}, CONTEXT)
    with pytest.raises(UsageError, match="Did you mean 'text'"):
        base.create("constant", {"txt": "x"}, CONTEXT)
    with pytest.raises(UsageError, match="predictions needs 'path'"):
        base.create("predictions", {}, CONTEXT)


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shouting:
        def __init__(self, context: base.Context, *, word: str = "yes") -> None:
            self.word = word

        def describe(self) -> dict[str, str]:
            return {"word": self.word}

        def predict(self, requests: Sequence[Request], task: base.Task) -> Iterator[Prediction]:
            for request in requests:
                yield Prediction(request.id, self.word.upper())

    module = types.ModuleType("some_package")
    module.Shouting = Shouting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_package", module)
    point = base.metadata.EntryPoint("shouting", "some_package:Shouting", base.ENTRY_POINTS)
    monkeypatch.setattr(base.metadata, "entry_points", lambda group: [point])
    requests = [ask(1, "?", "yes")]
    assert texts(base.create("shouting", {"word": "no"}, CONTEXT), requests) == ["NO"]
    monkeypatch.delattr(module, "Shouting")
    with pytest.raises(UsageError, match="some_package has no 'Shouting'"):
        base.create("shouting", {}, CONTEXT)


def test_shuffling_gives_nobody_their_own_ecg() -> None:
    requests = invented_requests("test", patients=9)
    owner = {request.record_ids[0]: request.cluster for request in requests}
    donors = shuffled_recordings(requests, seed=0)
    assert sorted(donors) == sorted(owner) == sorted(donors.values())
    assert all(owner[record] != owner[donor] for record, donor in donors.items())
    assert shuffled_recordings(list(reversed(requests)), seed=0) == donors
    assert shuffled_recordings(requests, seed=1) != donors
    with pytest.raises(DataError, match="one patient has more than half"):
        shuffled_recordings(invented_requests("test", patients=1), seed=0)


@dataclass(frozen=True)
class Item:
    recording_key: str
    codes: np.ndarray | None
    question: str | None
    features: str


class FakeResponder:
    """Answers with the first code that it is shown and the question, and counts its encodings."""

    fingerprint = "f" * 64
    codec_hash = "c" * 64
    dtype = "float32"
    encoded: ClassVar[list[str]] = []
    keys: ClassVar[list[str]] = []

    @classmethod
    def load(cls, checkpoint: Path, *, device: str = "cpu", threads: int | None = None) -> FakeResponder:
        return cls()

    def encode(self, recording: str) -> np.ndarray:
        type(self).encoded.append(recording)
        if recording.startswith("bad"):
            raise DataError("the .dat file is short", where=recording, remedy="Fetch it again.")
        return np.full(313, sum(map(ord, recording)), dtype=np.int64)

    def answer(self, items: Sequence[Item], *, max_new_tokens: int, batch_size: int) -> Iterator[str]:
        for item in items:
            type(self).keys.append(item.recording_key)
            yield f"{'none' if item.codes is None else item.codes[0]}|{item.question}|{item.features}"


class FakeWorkspace(Workspace):
    def __init__(self) -> None:
        super().__init__()

    def dataset(self, name: str) -> Any:
        return types.SimpleNamespace(read=lambda entry, **options: entry)

    def entry(self, name: str, record_id: str) -> Any:
        return record_id

    def recording_hash(self, name: str, record_id: str) -> str:
        return f"content of {record_id}"


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    module = types.ModuleType("heartllm.responder")
    module.Responder, module.ResponderItem = FakeResponder, Item  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "heartllm.responder", module)
    FakeResponder.encoded, FakeResponder.keys = [], []
    _responder.cache_clear()
    yield "some/checkpoint"
    _responder.cache_clear()


def test_heartllm_shows_each_recording_once_and_in_a_row(checkpoint: str) -> None:
    requests = sorted(invented_requests("test", patients=40), key=lambda request: request.question)
    adapter = HeartLLM(base.Context(FakeWorkspace(), batch_size=4), checkpoint=checkpoint)
    said = texts(adapter, requests)
    assert said[0].split("|")[1:] == ["Question 0?", "Age: 61 years."]
    assert said[0].split("|")[0] == str(sum(map(ord, requests[0].record_ids[0])))
    assert sorted(FakeResponder.encoded) == sorted({request.record_ids[0] for request in requests})
    groups = [key for index, key in enumerate(FakeResponder.keys) if index == 0 or FakeResponder.keys[index - 1] != key]
    assert len(groups) == len(set(groups)) == 80
    assert [request.id for request in by_recording(requests)][:3] == ["test0v0-0", "test0v0-1", "test0v0-2"]


def test_heartllm_controls(checkpoint: str) -> None:
    requests = invented_requests("test", patients=5)
    context = base.Context(FakeWorkspace())
    true, shuffled, none = (
        [said.split("|")[0] for said in texts(HeartLLM(context, checkpoint=checkpoint, ecg=ecg), requests)]
        for ecg in ("true", "shuffled", "none")
    )
    assert set(none) == {"none"}
    assert set(shuffled) == set(true)
    assert all(a != b for a, b in zip(true, shuffled, strict=True))
    # A run that is continued shows the same wrong ECGs as the run that was stopped.
    adapter = HeartLLM(context, checkpoint=checkpoint, ecg="shuffled")
    rest = [prediction.text.split("|")[0] for prediction in adapter.predict(requests[20:], task(requests))]
    assert rest == shuffled[20:]
    with pytest.raises(UsageError, match="ecg='off'"):
        HeartLLM(context, checkpoint=checkpoint, ecg="off")


def test_heartllm_caches_codes_and_survives_a_damaged_cache(checkpoint: str, tmp_path: Path) -> None:
    requests = invented_requests("test", patients=2)
    context = base.Context(FakeWorkspace(), cache=tmp_path)
    first = texts(HeartLLM(context, checkpoint=checkpoint), requests)
    assert len(FakeResponder.encoded) == 4
    stored = sorted(tmp_path.rglob("*.npy"))
    assert len(stored) == 4
    stored[0].write_bytes(b"\x93NUMPY")
    assert texts(HeartLLM(context, checkpoint=checkpoint), requests) == first
    assert len(FakeResponder.encoded) == 5


def test_a_comparison_shows_both_ecgs_and_shuffles_both(checkpoint: str) -> None:
    one = [request for request in invented_requests("test", patients=6) if request.template_id == 1]
    pairs = [
        replace(first, id=f"pair{number}", record_ids=(*first.record_ids, *second.record_ids))
        for number, (first, second) in enumerate(zip(one, one[2:], strict=False))
    ]
    context = base.Context(FakeWorkspace())
    for adapter in (HeartLLM(context, checkpoint=checkpoint), HeartLLM(context, checkpoint=checkpoint, ecg="shuffled")):
        donors = shuffled_recordings(pairs, 0) if adapter.ecg == "shuffled" else {}
        for pair in pairs:
            item = adapter._item(pair, task(pairs), donors)
            assert item.codes.shape[0] == 2
            shown = [donors.get(record, record) for record in pair.record_ids]
            assert item.recording_key.endswith("@" + "+".join(shown))
            assert all((a == b) == (adapter.ecg == "true") for a, b in zip(shown, pair.record_ids, strict=True))


def test_a_bad_recording_fails_its_requests_only(checkpoint: str) -> None:
    good, bad = invented_requests("test", patients=1), invented_requests("bad", patients=1)
    warnings: list[str] = []
    adapter = HeartLLM(base.Context(FakeWorkspace(), warn=warnings.append), checkpoint=checkpoint)
    found = {p.id: p for p in adapter.predict([*good, *bad], task([*good, *bad]))}
    assert all(found[request.id].error is None for request in good)
    assert all("short" in str(found[request.id].error) for request in bad)
    assert len(warnings) == 2  # one a recording


@pytest.mark.model
@pytest.mark.parametrize("device", ["gpu0", "", "cpu:x", "cuda:999"])
def test_a_device_that_is_not_there_is_told(device: str) -> None:
    pytest.importorskip("torch")
    base.check_device("cpu")
    with pytest.raises(UsageError, match=f"--device: '{device}' cannot be used here") as caught:
        base.check_device(device)
    assert "\n" not in str(caught.value)


def test_an_adapter_without_its_packages_is_told(
    checkpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    where = {"checkpoint": str(tmp_path)}
    base.create("heartllm", where, base.Context(FakeWorkspace(), device="cpu"))  # the fake responder needs none
    with pytest.raises(HeartLLMError, match=r"^the package 'torch' is not installed\. Install it with: pip install"):
        base.create("heartllm", where, base.Context(FakeWorkspace(), device="cuda"))

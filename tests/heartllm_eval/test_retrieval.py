"""The nearest training ECG: on vectors made by hand, and on drawn recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import DataError, UsageError
from heartllm_eval.models import base
from heartllm_eval.models.retrieval import GROUP_SIZES, Retrieval
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Prediction, Request


class Placed(Retrieval):
    """Recordings with a given rate and nothing else."""

    def __init__(self, context: base.Context, rates: Mapping[str, float], k: str = "1") -> None:
        super().__init__(context, k=k)
        self.rates = rates

    def vector(self, recording: tuple[str, str]) -> Any:
        if recording[1] not in self.rates:
            raise DataError("the .dat file is short", where=recording[1], remedy="Fetch it again.")
        vector = np.full(sum(GROUP_SIZES), np.nan)
        vector[0] = self.rates[recording[1]]
        return vector


def ask(record: str, *answer: str, template: int = 1, attribute: str = "a", **more: Any) -> Request:
    given = {"question_type": "single-verify", "template_id": template, "attribute": (attribute,), **more}
    records = tuple(record.split("+"))
    return Request(f"{record}-{template}-{attribute}", "qa", "d", records, references=answer, **given)


def answers(adapter: base.Adapter, requests: Sequence[Request], training: Sequence[Request]) -> list[Prediction]:
    task = base.Task("t", requests[0].kind, requests, training=lambda: training)
    return list(adapter.predict(requests, task))


RATES = {"slow": 50.0, "usual": 70.0, "fast": 120.0, "x": 55.0, "y": 110.0, "z": 71.0}
TRAINING = [
    ask("slow", "yes"),
    ask("usual", "no"),
    ask("fast", "not sure"),
    ask("fast", "lead I", "lead V1", template=2, attribute="b"),
    ask("slow", "maybe", template=2, attribute="c"),
]


def test_the_nearest_that_was_asked_the_same_answers() -> None:
    asked = [
        ask("x"),
        ask("y"),
        ask("z"),
        ask("x", template=2, attribute="b"),  # asked of one recording only, however far it is
        ask("x", template=2, attribute="new"),  # the template's nearest
        ask("y", template=9, attribute="new"),  # the type's nearest
        ask("y", template=2, attribute="new", options=("maybe", "none")),  # whose nearest answer is no option
        ask("x", template=9, question_type="new", options=("no", "yes")),
    ]
    found = [part.text for part in answers(Placed(base.Context(Workspace()), RATES), asked, TRAINING)]
    assert found == ["yes", "not sure", "no", "lead I; lead V1", "maybe", "not sure", "maybe", "no"]


def test_of_more_neighbours_the_most_frequent_answer_counts() -> None:
    rates = {**RATES, "slow2": 58.0, "slow3": 60.0}
    training = [*TRAINING, ask("slow2", "no"), ask("slow3", "no")]
    for k, expected in (("1", "no"), ("3", "no"), ("2", "no")):
        assert answers(Placed(base.Context(Workspace()), rates, k), [ask("x")], training)[0].text == expected
    rates = {"x": 55.0, "a": 54.0, "b": 57.0, "c": 58.0}
    training = [ask("a", "yes"), ask("b", "no"), ask("c", "no")]
    texts = [answers(Placed(base.Context(Workspace()), rates, k), [ask("x")], training)[0].text for k in "123"]
    assert texts == ["yes", "yes", "no"]  # a tie goes to the nearer


def test_never_its_own_label() -> None:
    training = [ask("x", "its own"), ask("slow", "yes")]
    assert answers(Placed(base.Context(Workspace()), RATES), [ask("x")], training)[0].text == "yes"


def test_two_ecgs_are_compared_pair_by_pair() -> None:
    training = [ask("slow+fast", "faster"), ask("fast+slow", "slower"), ask("slow", "alone")]
    found = answers(Placed(base.Context(Workspace()), RATES), [ask("x+y"), ask("y+x"), ask("y")], training)
    assert [part.text for part in found] == ["faster", "slower", "alone"]


def test_recordings_that_cannot_be_read() -> None:
    warnings: list[str] = []
    adapter = Placed(base.Context(Workspace(), warn=warnings.append), RATES)
    found = answers(adapter, [ask("lost"), ask("x")], [*TRAINING, ask("torn", "no"), ask("torn2", "no")])
    assert [part.error is None for part in found] == [False, True]
    assert "2 training recordings cannot be read" in warnings[0]
    assert "d/lost cannot be used" in warnings[1]
    assert [part.text for part in answers(adapter, [ask("x", options=("no", "yes"))], [])] == ["no"]
    with pytest.raises(UsageError, match="k='0'"):
        Retrieval(base.Context(Workspace()), k="0")


@pytest.mark.model
def test_on_drawn_recordings_it_beats_chance_and_is_kept(tmp_path: Path) -> None:
    """Wide QRS or not, from forty training ECGs; and the second run reads no recording."""
    from heartllm.data.synthetic import simulate

    class Drawn(Workspace):
        reads = 0

        def read(self, name: str, record_id: str, reader: Any = None) -> Any:
            Drawn.reads += 1
            return simulate(5, int(record_id))[0]

        def recording_hash(self, name: str, record_id: str) -> str:
            return record_id

    truths = [simulate(5, index)[1] for index in range(60)]
    wide = ["yes" if truth.intervals.qrs >= 115 else "no" for truth in truths]
    questions = [ask(str(index), answer, options=("no", "yes")) for index, answer in enumerate(wide)]
    context = base.Context(Drawn(), cache=tmp_path)
    first = answers(Retrieval(context), questions[40:], questions[:40])
    right = np.mean([part.text == answer for part, answer in zip(first, wide[40:], strict=True)])
    assert right >= 0.75
    assert Drawn.reads == 60
    assert answers(Retrieval(context), questions[40:], questions[:40]) == first
    assert Drawn.reads == 60
    stored = sorted(tmp_path.rglob("*.npy"))
    assert len(stored) == 60
    stored[0].write_bytes(b"\x93NUMPY")  # cut off by a kill
    assert answers(Retrieval(context), questions[40:], questions[:40]) == first
    assert Drawn.reads == 61


class Compass:
    """An encoder whose embeddings are directions, of recordings and of texts."""

    name, width, reads_text = "compass", 2, True
    angles: Mapping[str, float] = {"north.": 90.0, "east.": 0.0, "south-east.": -45.0}

    def texts(self, texts: Sequence[str]) -> Any:
        angles = np.radians([self.angles[text] for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], 1)


def embedded(angles: Mapping[str, float], *, by_text: bool) -> Retrieval:
    adapter = Retrieval(base.Context(Workspace()))
    adapter.encoder = Compass()  # type: ignore[assignment]
    adapter.encoder.reads_text = by_text  # type: ignore[misc, union-attr]

    def vector(recording: tuple[str, str]) -> Any:
        angle = np.radians(angles[recording[1]])
        return np.array([np.cos(angle), np.sin(angle)])

    adapter.vector = vector  # type: ignore[method-assign]
    return adapter


def report(record: str, text: str = "") -> Request:
    return Request(f"{record}-r", "report", "d", (record,), references=(text,) if text else ())


def test_with_an_encoder_the_smallest_angle_counts() -> None:
    angles = {"a": 80.0, "b": 10.0, "c": -50.0, "x": 30.0, "y": -21.0}
    training = [ask("a", "up"), ask("b", "right"), ask("c", "down")]
    found = answers(embedded(angles, by_text=False), [ask("x"), ask("y")], training)
    assert [part.text for part in found] == ["right", "down"]


def test_reports_are_the_nearest_ecgs_or_the_nearest_text() -> None:
    angles = {"a": 80.0, "b": -30.0, "c": 0.0, "x": 60.0, "y": -10.0}
    training = [report("a", "east."), report("b", "south-east."), report("c", "north.")]
    asked = [report("x"), report("y"), report("c")]
    by_ecg = answers(embedded(angles, by_text=False), asked, training)
    assert [part.text for part in by_ecg] == ["east.", "north.", "south-east."]
    by_text = answers(embedded(angles, by_text=True), asked, training)
    assert [part.text for part in by_text] == ["north.", "east.", "east."]
    near = answers(embedded({**angles, "c": 90.0}, by_text=True), [report("c")], training)
    assert near[0].text == "east."  # its own text would be nearest, but nobody else has it
    assert answers(embedded(angles, by_text=True), asked[:1], [])[0].text == ""


def test_text_without_an_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match="encoder=FOLDER"):
        Retrieval(base.Context(Workspace()), text="checkpoint")


@pytest.mark.model
def test_an_encoder_is_read_from_a_checkpoint(tmp_path: Path) -> None:
    import torch

    from heartllm.checkpoint import save_frontend, write_manifest
    from heartllm.codec.codec import CodecConfig
    from heartllm.data.synthetic import simulate
    from heartllm.frontends.clip import Clip, ClipConfig
    from heartllm.frontends.fsq import FSQCodes

    torch.manual_seed(0)
    front = Clip(ClipConfig(channels=2, blocks=1, embedding=8, heads=2, text_width=6)).eval()
    for name, made in (("clip", front), ("codec", FSQCodes(CodecConfig(decoder_width=8)))):
        save_frontend(made, tmp_path / name)
        write_manifest(tmp_path / name)
    adapter = Retrieval(base.Context(Workspace()), encoder=str(tmp_path / "clip"))
    assert adapter.encoder is not None
    recording = simulate(5, 0)[0]
    signal = torch.from_numpy(recording.signal)[None]
    np.testing.assert_allclose(adapter.encoder.vector(recording), front.embed(signal)[0].numpy(), rtol=1e-5)
    assert adapter.width == 8
    assert adapter.describe()["encoder"] == adapter.encoder.name
    with pytest.raises(UsageError, match="its front-end is 'fsq'"):
        Retrieval(base.Context(Workspace()), encoder=str(tmp_path / "codec"))

"""The responder: from a recording to an answer, and what a blind or featureless checkpoint is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.checkpoint import CheckpointConfig
from heartllm.codec.codec import CodecConfig
from heartllm.ecg.recording import LEADS, Recording
from heartllm.errors import DataError
from heartllm.frontends.fsq import FSQCodes
from heartllm.language.generation import Generator, ResponderItem
from heartllm.responder import Responder


@pytest.fixture
def responder(make_model: Callable[..., Any]) -> Responder:
    codec = FSQCodes(CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)).eval()
    model = make_model()
    config = CheckpointConfig(codec.config, model.config, model.vocabulary.base)
    return Responder(codec, Generator(model), config, "f", "c")


def recording(samples: int = 5000, rate: float = 500.0) -> Recording:
    signal = np.random.default_rng(0).normal(size=(len(LEADS), samples)).astype(np.float32)
    return Recording(signal=signal, sampling_rate=rate, record_id="r1")


def test_ten_seconds_are_313_codes(responder: Responder) -> None:
    codes = responder.encode(recording())
    assert codes.shape == (313,)
    assert codes.dtype == np.int64
    assert (codes >= 0).all()
    assert (codes < 36).all()
    assert (codes == responder.front.encode(torch.from_numpy(recording().signal)[None])[0].numpy()).all()


@pytest.mark.parametrize(("samples", "rate"), [(4000, 500.0), (1000, 100.0), (5000, 250.0)])
def test_other_lengths_and_rates_are_refused(responder: Responder, samples: int, rate: float) -> None:
    with pytest.raises(DataError, match="front-ends want 10 s at 500 Hz") as caught:
        responder.encode(recording(samples, rate))
    assert "r1" in str(caught.value)


def test_a_blind_checkpoint_sees_no_codes_and_one_without_features_no_features(responder: Responder) -> None:
    rng = np.random.default_rng(0)
    items = [ResponderItem(str(i), rng.integers(0, 36, 60), "Is it?", f"Age: {10 * i} years.") for i in range(4)]

    def answers() -> list[str]:
        return list(responder.answer(items, max_new_tokens=8))

    assert len(set(answers())) > 1
    responder.blind = True
    blind = answers()
    other = [replace(item, codes=rng.integers(0, 36, 60)) for item in items]
    assert list(responder.answer(other, max_new_tokens=8)) == blind
    responder.config = replace(responder.config, features=False)
    assert len(set(answers())) == 1


def test_option_scores_have_a_row_a_question(responder: Responder) -> None:
    item = ResponderItem("r", np.arange(30), None)
    scores = responder.option_scores(item, ["a?", "b?", "c?"], ["yes", "no"])
    assert scores.shape == (3, 2)
    assert (scores < 0).all()

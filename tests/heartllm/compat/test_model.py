"""The authors' model at work: codes by place, prompts as ids, greedy answers in any batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.compat.model import AuthorsModel
from heartllm.compat.prompts import load_prompts
from heartllm.errors import DataError
from heartllm.language.generation import ResponderItem

SWAPPED = [0, 1, 2, 3, 5, 4, *range(6, 12)]
QUESTIONS = ["Does this ECG show symptoms of sinus bradycardia?", "Answer the clinical question", None, "Why?"]


@pytest.fixture
def model(best: Path, tuned: Path, backbone: Path) -> AuthorsModel:
    return AuthorsModel.read(best, tuned, backbone, load_prompts())


def test_slots_are_filled_as_each_hospital_stores_leads(
    model: AuthorsModel, make_recording: Callable[..., Any]
) -> None:
    from dataclasses import replace

    here, there = make_recording("ptbxl", 1), make_recording("mimic", 1)
    by_place = model.codec.encode(torch.from_numpy(here.signal)[None])[0].numpy()
    swapped = model.codec.encode(torch.from_numpy(here.signal[SWAPPED])[None])[0].numpy()
    assert not np.array_equal(by_place, swapped)
    assert np.array_equal(model.encode(here), by_place)
    assert np.array_equal(model.encode(there), swapped)  # the same ECG has other tokens in the other hospital
    assert np.array_equal(model.encode(replace(here, source="synthetic-b")), swapped)
    for leads, wanted in (("ptbxl", by_place), ("mimic", swapped)):
        model.leads = leads  # type: ignore[assignment]
        assert np.array_equal(model.encode(here), wanted)
        assert np.array_equal(model.encode(there), wanted)


def test_recordings_of_another_length_or_with_nan(model: AuthorsModel, make_recording: Callable[..., Any]) -> None:
    from dataclasses import replace

    recording = make_recording()
    with pytest.raises(DataError, match=r"lasts 9\.00 s"):
        model.encode(replace(recording, signal=recording.signal[:, :4500]))
    broken = recording.signal.copy()
    broken[7, 123] = np.nan
    with pytest.raises(DataError, match="NaN"):
        model.encode(replace(recording, signal=broken))


def test_a_prompt_is_text_ecg_text(model: AuthorsModel) -> None:
    vocabulary, codes = model.vocabulary, np.array([0, 1295, 7])
    text = len(vocabulary.tokenizer)
    before, after = model.prompts.parts("Why?", "")
    ids = model.ids(ResponderItem("x", codes, "Why?"))
    opening = [vocabulary.tokenizer.bos_token_id, *vocabulary.text(before)]
    ecg = [text + 1, text + 3, text + 3 + 1295, text + 3 + 7, text + 2]
    assert ids == [*opening, *ecg, *vocabulary.text(after)]
    assert model.ids(ResponderItem("x", None, "Why?")) == [*opening, *vocabulary.text(after)]
    two = model.ids(ResponderItem("x", np.stack([codes, codes[::-1]]), "Why?"))
    assert two == [*opening, *ecg, text + 1, *ecg[3:0:-1], text + 2, *vocabulary.text(after)]


def continued(model: AuthorsModel, item: ResponderItem, most: int) -> str:
    """The greedy answer, step by step without cache or batch."""
    ids, end = model.ids(item), model.vocabulary.eos
    first = len(ids)
    with torch.inference_mode():
        while len(ids) - first < most:
            token = int(model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token == end:
                break
            ids.append(token)
    return model.vocabulary.decode(ids[first:])


def test_answers_are_greedy_and_the_same_in_any_batch(model: AuthorsModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartllm.compat.model.MAX_NEW_TOKENS", {"qa": 9, "report": 12})
    rng = np.random.default_rng(0)
    items = [
        ResponderItem(str(i), rng.integers(1296, size=30), QUESTIONS[i % 4], "Patient Information: - Age: 54;")
        for i in range(7)
    ]
    wanted = [continued(model, item, 12 if item.question is None else 9) for item in items]
    assert len(set(wanted)) > 3
    for size in (1, 3, 7):
        assert list(model.answer(items, batch_size=size)) == wanted


def test_answers_end_where_the_authors_cut_them(model: AuthorsModel) -> None:
    lengths: list[int] = []
    generate = model.model.generate

    def spy(*args: Any, **settings: Any) -> Any:
        lengths.append(settings["generation_config"].max_new_tokens)
        settings["generation_config"].max_new_tokens = 3
        return generate(*args, **settings)

    model.model.generate = spy
    codes = np.zeros(5, np.int64)
    list(model.answer([ResponderItem("a", codes, "Why?"), ResponderItem("a", codes, None)], batch_size=1))
    assert lengths == [170, 200]


def test_what_decides_the_answers_is_in_the_fingerprint(best: Path, tuned: Path, backbone: Path) -> None:
    usual = AuthorsModel.read(best, tuned, backbone, load_prompts())
    assert usual.fingerprint == AuthorsModel.read(best, tuned, backbone, load_prompts()).fingerprint
    others = [
        AuthorsModel.read(best, tuned, backbone, load_prompts(), leads="mimic"),
        AuthorsModel.read(best, tuned, backbone, load_prompts(), base="backbone"),
        AuthorsModel.read(best, tuned, backbone, load_prompts(), alpha=32.0),
    ]
    assert len({model.fingerprint for model in (usual, *others)}) == 4
    assert others[0].codec_hash != usual.codec_hash == others[1].codec_hash

"""Attention and occlusion: rows that sum to 1, nothing changed by nothing, and a model whose look is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from heartllm.errors import UsageError
from heartllm.language.generation import Generator, ResponderItem
from heartllm.language.looking import (
    Scene,
    attention,
    by_position,
    eager_attention,
    ecg_vectors,
    occlusion,
    scenes,
    sliding_windows,
)

FEATURES = "Age: 54 years. Sex: female."
ASKED = [
    ("Does this ECG show symptoms of sinus bradycardia?", "yes"),
    ("Which noise does this ECG show?", "static noise; baseline drift"),
]
CODES = np.random.default_rng(0).integers(0, 36, 20)
OTHERS = np.random.default_rng(1).integers(0, 36, (3, 20))


def ecg(generator: Generator, codes: np.ndarray) -> torch.Tensor:
    return ecg_vectors(generator, list(np.atleast_2d(codes)))


def first_scene(generator: Generator, asked: list[tuple[str | None, str]] | None = None) -> Scene:
    return next(scenes(generator, ecg(generator, CODES)[0], FEATURES, asked or ASKED))[0]


@pytest.mark.parametrize("layout", ["ecg-first", "question-first"])
def test_rows_of_attention_sum_to_one_over_all_positions(make_model: Callable[..., Any], layout: Any) -> None:
    generator = Generator(make_model(), layout)
    for scene, _ in scenes(generator, ecg(generator, CODES)[0], FEATURES, ASKED):
        for found, branch, answer in zip(attention(generator, scene), scene.branches, scene.answers, strict=True):
            both = torch.cat([scene.prefix, branch])  # everything in the place of the ECG
            everything = Scene(both, (0, len(both)), (both[:0],), (answer,))
            (whole,) = attention(generator, everything)
            np.testing.assert_allclose(whole.share, 1, atol=1e-5)
            np.testing.assert_allclose(whole.rollout.sum(), 1, atol=1e-5)
            np.testing.assert_allclose(found.heads, whole.heads[..., slice(*scene.ecg)], atol=1e-6)
            np.testing.assert_allclose(found.share, found.heads.sum(-1))
            assert found.heads.shape == (2, 2, 20)


def test_attention_is_that_of_the_kernel_itself(make_model: Callable[..., Any]) -> None:
    """Against transformers' own weights over the whole sequence, whose rows sum to 1, and their rollout by hand."""
    generator = Generator(make_model())
    scene = first_scene(generator, ASKED[1:])
    (found,) = attention(generator, scene)
    body = generator.model.body
    embedded = torch.cat([scene.prefix, scene.branches[0]])[None]
    with eager_attention(body), torch.no_grad():
        weights = body(inputs_embeds=embedded, use_cache=False, output_attentions=True).attentions
    assert all(torch.allclose(layer.sum(-1), torch.ones(1), atol=1e-5) for layer in weights)
    answer = len(scene.answers[0])
    rows = list(range(embedded.shape[1] - answer, embedded.shape[1] - 1))
    by_hand = np.array([[[layer[0, h, r].numpy() for r in rows] for h in range(2)] for layer in weights]).mean(2)
    np.testing.assert_allclose(found.heads, by_hand[..., slice(*scene.ecg)], atol=1e-6)
    flow = np.eye(embedded.shape[1])
    for layer in weights:
        flow = (layer[0].mean(0).numpy() + np.eye(len(flow))) / 2 @ flow
    np.testing.assert_allclose(flow.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found.rollout, flow[rows][:, slice(*scene.ecg)].mean(0), atol=1e-6)


def test_looking_leaves_the_model_as_it_was(make_model: Callable[..., Any]) -> None:
    generator = Generator(make_model())
    before = generator.model.body.config._attn_implementation
    attention(generator, first_scene(generator))
    assert generator.model.body.config._attn_implementation == before


@pytest.mark.parametrize("layout", ["ecg-first", "question-first"])
def test_occluding_with_itself_changes_nothing(make_model: Callable[..., Any], layout: Any) -> None:
    generator = Generator(make_model(), layout)
    for scene, _ in scenes(generator, ecg(generator, CODES)[0], FEATURES, ASKED):
        drops = occlusion(generator, scene, ecg(generator, np.stack([CODES, CODES])), sliding_windows(20, 4, 3))
        np.testing.assert_allclose(drops, 0, atol=2e-5)


def test_occlusion_is_the_difference_of_two_readings(make_model: Callable[..., Any]) -> None:
    """Against whole sequences with the codes exchanged, one by one."""
    generator = Generator(make_model())
    windows = [(0, 3), (17, 20), (5, 6), (0, 20)]
    drops = occlusion(generator, first_scene(generator), ecg(generator, OTHERS), windows, batch=4)
    assert drops.shape == (4, 3, 2)

    def likelihoods(codes: np.ndarray) -> np.ndarray:
        item = ResponderItem("", codes, None, FEATURES)
        return np.array([generator.option_scores(item, [q or ""], [a])[0, 0] for q, a in ASKED])

    whole = likelihoods(CODES)
    for w, (left, right) in enumerate(windows):
        for d, other in enumerate(OTHERS):
            changed = CODES.copy()
            changed[left:right] = other[left:right]
            np.testing.assert_allclose(drops[w, d], whole - likelihoods(changed), atol=2e-4)


class Pointer(nn.Module):
    """A "language model" whose answer depends on one position alone, and whose only head looks there."""

    place = 0

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="pointer", _attn_implementation="sdpa")

    def forward(self, inputs_embeds: torch.Tensor, past_key_values: Any = None, **options: Any) -> Any:
        batch, length, width = inputs_embeds.shape
        seen = inputs_embeds
        if past_key_values is not None:
            kept, _ = past_key_values.update(inputs_embeds[:, None], inputs_embeds[:, None], 0)
            seen = kept[:, 0]
        weights = torch.zeros(batch, 1, length, seen.shape[1])
        weights[..., self.place] = 1
        states = seen[:, self.place : self.place + 1].expand(batch, length, width)
        given = (weights,) if options.get("output_attentions") else None
        return SimpleNamespace(last_hidden_state=states, attentions=given)


def test_a_model_that_looks_at_one_place_is_found_by_both(make_model: Callable[..., Any]) -> None:
    model = make_model()
    generator = Generator(model)
    scene = first_scene(generator)
    pointer = Pointer()
    pointer.place = scene.ecg[0] + 11
    stand_in: Any = SimpleNamespace(body=pointer, token_losses=model.token_losses)
    generator.model = stand_in
    looked = attention(generator, scene)
    windows = sliding_windows(20, 1)
    with torch.no_grad():
        others = generator.table[generator.vocabulary.first_code + torch.from_numpy(OTHERS)]
    drops = occlusion(generator, scene, others, windows)
    for number, found in enumerate(looked):
        assert found.mean.argmax() == 11
        assert found.rollout.argmax() == 11
        assert found.share.tolist() == [[1.0]]
        scores = np.abs(by_position(drops.mean(1), windows, 20)[:, number])
        assert scores.argmax() == 11
        assert np.delete(scores, 11).max() == pytest.approx(0, abs=1e-5)


def test_what_gives_no_weights_is_refused(make_model: Callable[..., Any]) -> None:
    model = make_model()
    generator = Generator(model)
    scene = first_scene(generator)

    class Silent(Pointer):
        def forward(self, inputs_embeds: torch.Tensor, past_key_values: Any = None, **options: Any) -> Any:
            return SimpleNamespace(last_hidden_state=inputs_embeds, attentions=None)

    class Deaf(Pointer):
        def forward(self, inputs_embeds: torch.Tensor, use_cache: bool) -> Any:  # type: ignore[override]
            raise AssertionError("not reached")

    for body in (Silent(), Deaf()):
        stand_in: Any = SimpleNamespace(body=body)
        generator.model = stand_in
        with pytest.raises(UsageError, match="no attention weights") as caught:
            attention(generator, scene)
        assert "eager" in str(caught.value)
    without: Any = SimpleNamespace(body=SimpleNamespace(config=SimpleNamespace(model_type="rwkv")))
    generator.model = without
    with pytest.raises(UsageError, match="'rwkv' model has no attention"):
        attention(generator, scene)

    def refuse(kernel: str) -> None:
        raise ValueError(f"no {kernel} here")

    stubborn = Silent()
    stubborn.set_attn_implementation = refuse
    only: Any = SimpleNamespace(body=stubborn)
    generator.model = only
    with pytest.raises(UsageError, match="no kernel"):
        attention(generator, scene)


def test_windows_and_replacements_that_do_not_fit_are_refused(make_model: Callable[..., Any]) -> None:
    generator = Generator(make_model())
    scene = first_scene(generator)
    with pytest.raises(UsageError, match="do not fit"):
        occlusion(generator, scene, ecg(generator, OTHERS)[:, :19], [(0, 1)])
    with pytest.raises(UsageError, match="laid over each other"):
        ecg_vectors(generator, [CODES, CODES[:19]])
    for width, stride in ((0, 1), (21, 1), (2, 0)):
        with pytest.raises(UsageError, match="windows"):
            sliding_windows(20, width, stride)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 15))
def test_windows_cover_and_average(positions: int, width: int, stride: int) -> None:
    width = min(width, positions)
    windows = sliding_windows(positions, width, stride)
    drops = np.random.default_rng(positions).random((len(windows), 2))
    found = by_position(drops, windows, positions)
    for place in range(positions):
        inside = [drop for drop, (left, right) in zip(drops, windows, strict=True) if left <= place < right]
        np.testing.assert_allclose(found[place], np.mean(inside, 0) if inside else 0)
    assert windows[-1][1] == positions
    assert stride > width or all(any(a <= place < b for a, b in windows) for place in range(positions))

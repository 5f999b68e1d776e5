"""Packing: the mask, the positions, and that a packed sequence means the same as its questions one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heartllm.checkpoint import CheckpointConfig, new_language
from heartllm.codec.codec import CodecConfig
from heartllm.language.model import LanguageConfig
from heartllm.language.packing import IGNORED, Packed, block_mask, collate, pack
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids

QUESTIONS = [
    ("Does this ECG show symptoms of sinus bradycardia?", "yes"),
    ("What is the heart axis?", "left axis deviation"),
    ("Which noise does this ECG show?", "baseline drift; static noise"),
    (None, "sinus rhythm, normal ECG."),
]
lengths = st.lists(st.integers(1, 6), min_size=0, max_size=5)


def sequence(vocabulary: Any, seed: int, count: int = 4, first: int = 0) -> Packed:
    """An ECG of 20 codes with `count` of the questions, beginning with `first`."""
    codes = np.random.default_rng(seed).integers(0, vocabulary.codes, 20)
    prefix, span = prefix_ids(vocabulary, "Age: 54 years.", codes)
    pairs = [(prompt_ids(vocabulary, q), answer_ids(vocabulary, a)) for q, a in QUESTIONS[first : first + count]]
    return pack(prefix, pairs, span)


@given(prefix=st.integers(0, 6), branches=lengths, padding=st.integers(0, 4))
def test_mask_shows_the_prefix_and_ones_own_branch_only(prefix: int, branches: list[int], padding: int) -> None:
    numbers = [0] * prefix + [n for n, size in enumerate(branches, 1) for _ in range(size)] + [-1] * padding
    if not numbers:
        return
    mask = block_mask(torch.tensor([numbers]))[0, 0].numpy()
    for i, mine in enumerate(numbers):
        for j, theirs in enumerate(numbers):
            assert mask[i, j] == (j <= i and theirs in (0, mine))
    assert mask.diagonal().all()


@given(prefix=st.integers(1, 6), branches=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=4))
def test_positions_start_again_behind_the_prefix_and_labels_follow_their_tokens(
    prefix: int, branches: list[tuple[int, int]]
) -> None:
    fresh = iter(range(1000))
    pairs = [tuple(np.array([next(fresh) for _ in range(n)], np.int64) for n in sizes) for sizes in branches]
    packed = pack(np.array([next(fresh) for _ in range(prefix)], np.int64), pairs)  # type: ignore[arg-type]
    for number in range(1, len(branches) + 1):
        inside = packed.branch == number
        assert packed.positions[inside].tolist() == list(range(prefix, prefix + int(inside.sum())))
    for i in np.flatnonzero(packed.labels != IGNORED):
        assert packed.labels[i] == packed.ids[i + 1]
        assert packed.branch[i] == packed.branch[i + 1] > 0
    assert (packed.labels != IGNORED).sum() == sum(answer for _, answer in branches)


def test_forecasting_targets_are_the_codes_and_only_they(vocabulary: Any) -> None:
    packed = sequence(vocabulary, 0)
    targets = np.flatnonzero(packed.forecast != IGNORED)
    assert len(targets) == 20
    assert (packed.forecast[targets] == packed.ids[targets + 1]).all()
    assert (packed.forecast[targets] >= vocabulary.first_code).all()
    assert packed.ids[targets[0]] == vocabulary.start


def test_padding_changes_no_loss(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    model = in_double(make_model())
    short, long = sequence(vocabulary, 0, 1), sequence(vocabulary, 1, 4)
    alone, beside = collate([short], vocabulary.pad), collate([short, long], vocabulary.pad)
    size = len(short.ids)
    with torch.no_grad():
        a = model.hidden_states(alone.ids, alone.positions, alone.mask)
        b = model.hidden_states(beside.ids, beside.positions, beside.mask)
    torch.testing.assert_close(a[0], b[0, :size], atol=1e-9, rtol=0)
    assert torch.isfinite(b).all()


def total_loss(model: Any, sequences: list[Packed], pad: int) -> torch.Tensor:
    """Summed answer loss in nats."""
    batch = collate(sequences, pad)
    kept = batch.labels != IGNORED
    hidden = model.hidden_states(batch.ids, batch.positions, batch.mask)
    loss: torch.Tensor = model.token_losses(hidden[kept], batch.labels[kept]).sum() / 20
    return loss


def in_double(model: Any) -> Any:
    """The model in float64, with its RMS norms too: transformers computes those in float32 whatever the model is in."""
    model = model.double()
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            epsilon = module.variance_epsilon
            module.forward = lambda x, w=module.weight, e=epsilon: torch.nn.functional.rms_norm(x, w.shape, w, e)
    return model


def compare(model: Any, vocabulary: Any, loss_tolerance: float, gradient_tolerance: float) -> None:
    model.eval()
    packed = [sequence(vocabulary, seed) for seed in (0, 1)]
    single = [sequence(vocabulary, seed, 1, first) for seed in (0, 1) for first in range(4)]
    results = []
    for sequences in (packed, single):
        model.zero_grad()
        loss = total_loss(model, sequences, vocabulary.pad)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        results.append((loss.item(), gradients))
    assert results[0][0] == pytest.approx(results[1][0], abs=loss_tolerance)
    assert results[0][1].keys() == results[1][1].keys()
    assert len(results[0][1]) > 4
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], atol=gradient_tolerance, rtol=gradient_tolerance)


def test_packed_loss_and_gradients_equal_the_unpacked_in_float32(
    vocabulary: Any, make_model: Callable[..., Any]
) -> None:
    compare(make_model(), vocabulary, 1e-4, 1e-4)


@pytest.mark.parametrize("rows", ["digits", "opaque"])
@pytest.mark.parametrize("train", ["all", "lora"])
def test_packed_loss_and_gradients_equal_the_unpacked_in_float64(
    vocabulary: Any, make_model: Callable[..., Any], rows: str, train: str
) -> None:
    compare(in_double(make_model(rows=rows, train=train)), vocabulary, 1e-9, 1e-9)


@pytest.mark.parametrize("kind", ["qwen2", "mistral", "gpt_neox", "gpt2"])
def test_packing_holds_for_other_families(tokenizer: Any, backbone_folder: Callable[[str], Any], kind: str) -> None:
    config = CheckpointConfig(
        CodecConfig(levels=(3, 3, 2, 2)), LanguageConfig(backbone=str(backbone_folder(kind))), len(tokenizer) + 5
    )
    model = in_double(new_language(config, tokenizer))
    compare(model, model.vocabulary, 1e-9, 1e-9)


def test_option_scores_are_log_likelihoods_of_the_options_alone(
    vocabulary: Any, make_model: Callable[..., Any]
) -> None:
    from heartllm.language.generation import Generator, ResponderItem

    model = in_double(make_model())
    codes = np.arange(20)
    questions, options = ["What is the heart axis?", "Does this ECG show noise?"], ["yes", "left axis deviation"]
    scores = Generator(model).option_scores(ResponderItem("r", codes, None, "Age: 54 years."), questions, options)
    assert scores.shape == (2, 2)
    prefix, _ = prefix_ids(vocabulary, "Age: 54 years.", codes)
    for i, question in enumerate(questions):
        for j, option in enumerate(options):
            one = pack(prefix, [(prompt_ids(vocabulary, question), answer_ids(vocabulary, option))])
            with torch.no_grad():
                assert scores[i, j] == pytest.approx(-20 * float(total_loss(model, [one], vocabulary.pad)), abs=1e-8)


def test_a_batch_without_branches_needs_no_mask(make_model: Callable[..., Any]) -> None:
    model = make_model()
    batch = collate([pack(np.arange(20), []), pack(np.arange(9), [])], 0)
    assert batch.mask is None
    plain = model.hidden_states(batch.ids, batch.positions, None)
    masked = model.hidden_states(batch.ids, batch.positions, block_mask(batch.branch))
    torch.testing.assert_close(plain[0], masked[0])
    torch.testing.assert_close(plain[1, :9], masked[1, :9])

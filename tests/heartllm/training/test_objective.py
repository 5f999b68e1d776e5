"""The objective: its terms, their weights, and batches in which one of them has nothing to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.language.packing import IGNORED, Batch, collate, pack
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids
from heartllm.training.objective import Asking, Heads, Weights, language_losses, question_states

FINDINGS = torch.tensor([[1, 0, -1]], dtype=torch.int8)


def batch_of(vocabulary: Any, questions: int = 2, blind: bool = False) -> Batch:
    codes = None if blind else np.random.default_rng(0).integers(0, 36, 90)
    prefix, span = prefix_ids(vocabulary, "", codes)
    pairs = [(prompt_ids(vocabulary, f"Q {i}?"), answer_ids(vocabulary, "yes")) for i in range(questions)]
    return collate([pack(prefix, pairs, None if blind else span)], vocabulary.pad)


def test_terms_are_weighted_means(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    model, batch = make_model(), batch_of(vocabulary)
    torch.manual_seed(0)
    weights = Weights(2.0, 0.5, 3.0)
    terms = language_losses(model, Heads(32, 3, weights), batch, FINDINGS, weights)
    assert set(terms) == {"loss", "answer", "forecast", "reading"}
    assert terms["loss"].item() == pytest.approx(sum(terms[n].item() for n in ("answer", "forecast", "reading")))
    hidden = model.hidden_states(batch.ids, batch.positions, batch.mask)
    for name, labels, weight in (("answer", batch.labels, 2.0), ("forecast", batch.forecast, 0.5)):
        logits = (hidden @ model.table().T)[labels != IGNORED]
        chosen = logits.log_softmax(-1).gather(1, labels[labels != IGNORED][:, None])
        assert terms[name].item() == pytest.approx(-weight * chosen.mean().item(), rel=1e-5)


def test_terms_without_weight_are_left_out(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    terms = language_losses(make_model(), None, batch_of(vocabulary), FINDINGS, Weights(1.0, 0.0, 1.0))
    assert set(terms) == {"loss", "answer"}


@pytest.mark.parametrize(("questions", "blind", "weights"), [(0, False, (1.0, 0.0)), (2, True, (0.0, 1.0))])
def test_a_batch_without_labels_costs_nothing_and_can_be_differentiated(
    vocabulary: Any, make_model: Callable[..., Any], questions: int, blind: bool, weights: tuple[float, float]
) -> None:
    model = make_model()
    loss = language_losses(model, None, batch_of(vocabulary, questions, blind), FINDINGS, Weights(*weights))["loss"]
    assert loss.item() == 0.0
    loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def asking_of(vocabulary: Any) -> Asking:
    texts = ["Short?", "Does this ECG show symptoms of it?"]
    return Asking(
        collate([pack(prompt_ids(vocabulary, text), []) for text in texts], vocabulary.pad), torch.tensor([1, 0])
    )


@pytest.mark.parametrize("weights", [Weights(0.0, 0.0, reading=1.0), Weights(0.0, 0.0, matching=1.0)])
def test_reading_supervision_teaches_the_layers_below_it(
    vocabulary: Any, make_model: Callable[..., Any], weights: Weights
) -> None:
    model, heads = make_model(), Heads(32, 3, weights)
    batch, asking = batch_of(vocabulary), asking_of(vocabulary)
    language_losses(model, heads, batch, FINDINGS, weights, asking)["loss"].backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("layers.0." in name for name in touched)
    assert not any("layers.1." in name for name in touched)


def test_matching_is_the_score_of_an_attention_head(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    model, weights = make_model(), Weights(0.0, 0.0, matching=2.0)
    torch.manual_seed(0)
    heads, batch, asking = Heads(32, 3, weights), batch_of(vocabulary), asking_of(vocabulary)
    found = language_losses(model, heads, batch, FINDINGS, weights, asking)["matching"].item()
    matching: Any = heads.matching
    codes = [i for i in range(batch.ids.shape[1]) if batch.ecg[0, i]][64:]
    ecg = model.hidden_states(batch.ids, batch.positions, batch.mask, all_layers=True)[1][-2][0, codes]
    losses = []
    for text, target in (("Short?", 0.0), ("Does this ECG show symptoms of it?", 1.0)):  # findings 1 and 0
        alone = collate([pack(prompt_ids(vocabulary, text), [])], vocabulary.pad)
        state = model.hidden_states(alone.ids, alone.positions, alone.mask, all_layers=True)[1][-2][0, -1]
        logits = matching.key(ecg) @ matching.query(state) / 32**0.5 + matching.bias(state)
        losses.append(torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target)))
    assert found == pytest.approx(2.0 * torch.stack(losses).mean().item(), rel=1e-5)


def test_the_state_of_a_question_does_not_depend_on_its_neighbours(
    vocabulary: Any, make_model: Callable[..., Any]
) -> None:
    model, asking = make_model(), asking_of(vocabulary)
    both = question_states(model, asking.prompts, model.table(), 1)
    alone = collate([pack(prompt_ids(vocabulary, "Short?"), [])], vocabulary.pad)
    torch.testing.assert_close(both[0], question_states(model, alone, model.table(), 1)[0])


def test_bfloat16_products_change_the_loss_little(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    model, batch, weights = make_model(), batch_of(vocabulary), Weights(1.0, 1.0)
    exact = language_losses(model, None, batch, FINDINGS, weights)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        rough = language_losses(model, None, batch, FINDINGS, weights)["loss"]
    assert rough.dtype == torch.float32
    assert rough.item() == pytest.approx(exact.item(), rel=0.01)

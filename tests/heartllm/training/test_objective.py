"""The objective: its terms, their weights, and batches in which one of them has nothing to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.language.packing import IGNORED, Batch, collate, pack
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids
from heartllm.training.objective import Weights, language_losses
from heartllm.training.reading import ReadingHead

FINDINGS = torch.tensor([[1, 0, -1]], dtype=torch.int8)


def batch_of(vocabulary: Any, questions: int = 2, blind: bool = False) -> Batch:
    codes = None if blind else np.random.default_rng(0).integers(0, 36, 90)
    prefix, span = prefix_ids(vocabulary, "", codes)
    pairs = [(prompt_ids(vocabulary, f"Q {i}?"), answer_ids(vocabulary, "yes")) for i in range(questions)]
    return collate([pack(prefix, pairs, None if blind else span)], vocabulary.pad)


def test_terms_are_weighted_means(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    model, batch = make_model(), batch_of(vocabulary)
    torch.manual_seed(0)
    head = ReadingHead(32, 3)
    terms = language_losses(model, head, batch, FINDINGS, Weights(2.0, 0.5, 3.0))
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


def test_the_reading_head_teaches_the_layers_below_the_last(vocabulary: Any, make_model: Callable[..., Any]) -> None:
    model, head = make_model(), ReadingHead(32, 3)
    language_losses(model, head, batch_of(vocabulary), FINDINGS, Weights(0.0, 0.0, 1.0))["loss"].backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("layers.0." in name for name in touched)
    assert not any("layers.1." in name for name in touched)

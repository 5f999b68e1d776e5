"""Soft tokens: a continuous front-end's values in the places of placeholders, the same in training and in answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heartllm.errors import CheckpointError
from heartllm.language.generation import Generator, ResponderItem
from heartllm.language.model import ECGLanguageModel, build_tiny, choose_trained
from heartllm.language.packing import IGNORED, collate, pack
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids, prompt_text, soft_values
from heartllm.language.vocabulary import PLACEHOLDERS, Vocabulary
from heartllm.training.examples import Drawing, ECGRow, draw_sequence
from heartllm.training.objective import Heads, Weights, language_losses
from heartllm.training.reading import FIRST_POSITION, read_positions

WIDTH, QUESTIONS = 3, ("Is it?", "What is the heart axis?", None)


class Soft(nn.Module):
    """A linear layer and the mean text row, so that both of what it is given matters."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, hidden)

    def forward(self, values: Tensor, text_rows: Tensor) -> Tensor:
        return self.linear(values) + text_rows.mean(0)


@pytest.fixture
def make_soft(tokenizer: Any, tiny_config: Any) -> Callable[..., ECGLanguageModel]:
    def make(**changes: Any) -> ECGLanguageModel:
        from dataclasses import replace

        config = replace(tiny_config, **changes)
        vocabulary = Vocabulary(tokenizer, len(tokenizer), PLACEHOLDERS, WIDTH)
        torch.manual_seed(0)
        model = ECGLanguageModel(build_tiny(config.tiny, vocabulary, 0), vocabulary, (), config, Soft(32))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim >= 2:
                    parameter.normal_(std=0.4)
        choose_trained(model)
        return model

    return make


def values(count: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)


def test_placeholders_stand_where_the_values_go(make_soft: Callable[..., ECGLanguageModel]) -> None:
    model = make_soft()
    vocabulary, ecg = model.vocabulary, values(5)
    ids, span = prefix_ids(vocabulary, "Age: 4.", ecg)
    places = np.flatnonzero(ids == vocabulary.first_code)
    assert places.tolist() == list(range(*span))
    table = model.table()
    embedded = model.embed(torch.from_numpy(ids)[None], table, torch.from_numpy(ecg)[None])[0]
    wanted = model.soft(torch.from_numpy(ecg), table[: vocabulary.base])
    torch.testing.assert_close(embedded[places], wanted)
    others = np.setdiff1d(np.arange(len(ids)), places)
    torch.testing.assert_close(embedded[others], table[torch.from_numpy(ids[others])])


def test_two_ecgs_follow_each_other(make_soft: Callable[..., ECGLanguageModel]) -> None:
    model, both = make_soft(), np.stack([values(4, 1), values(4, 2)])
    ids, _ = prefix_ids(model.vocabulary, "", both)
    assert (ids == model.vocabulary.first_code).sum() == 8
    found = soft_values(both)
    assert found is not None
    np.testing.assert_array_equal(found, np.concatenate(list(both)))
    assert prompt_text("", both, "Is it?").count("<ecg_0000>") == 8


def test_packed_loss_and_its_gradient_equal_the_unpacked(make_soft: Callable[..., ECGLanguageModel]) -> None:
    model = make_soft().double()
    vocabulary, prefixes = model.vocabulary, []
    for seed, count in ((1, 30), (2, 17)):  # of different length, so that values are padded
        ids, span = prefix_ids(vocabulary, "Age: 54 years.", values(count, seed))
        prefixes.append((ids, span, values(count, seed)))
    pairs = [
        (prompt_ids(vocabulary, q), answer_ids(vocabulary, a))
        for q, a in zip(QUESTIONS, ("yes", "a; b", "c"), strict=True)
    ]

    def sums(batches: list[Any]) -> tuple[Tensor, Tensor]:
        model.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for batch in batches:
            hidden = model.hidden_states(batch.ids, batch.positions, batch.mask, values=batch.values)
            kept = batch.labels != IGNORED
            total = total + model.token_losses(hidden[kept], batch.labels[kept]).sum()
        total.backward()
        return total.detach(), model.soft.linear.weight.grad.clone()  # type: ignore[union-attr]

    packed = collate([pack(ids, pairs, span, ecg) for ids, span, ecg in prefixes], vocabulary.pad)
    alone = [collate([pack(i, [pair], s, e)], vocabulary.pad) for i, s, e in prefixes for pair in pairs]
    (one, gradient), (other, wanted) = sums([packed]), sums(alone)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-6)
    assert gradient.abs().max() > 0


def test_shared_prefixes_give_the_answers_of_single_ones(make_soft: Callable[..., ECGLanguageModel]) -> None:
    model = make_soft()
    generator = Generator(model)
    items = [
        ResponderItem(str(seed), values(20 + seed, seed), question, "Age: 54 years.")
        for seed in range(3)
        for question in QUESTIONS
    ]
    together = list(generator.answer(items, max_new_tokens=8, batch_size=9))
    single = [next(iter(generator.answer([item], max_new_tokens=8))) for item in items]
    assert together == single
    assert len(set(together)) > 3  # the ECG and the question both matter
    scores = generator.option_scores(items[0], ["Is it?"], ["yes", "no"])
    other = generator.option_scores(items[3], ["Is it?"], ["yes", "no"])
    assert np.abs(scores - other).max() > 1e-3
    ids, span = prefix_ids(model.vocabulary, "Age: 54 years.", items[0].codes)
    pair = (prompt_ids(model.vocabulary, "Is it?"), answer_ids(model.vocabulary, "yes"))
    batch = collate([pack(ids, [pair], span, soft_values(items[0].codes))], model.vocabulary.pad)
    with torch.no_grad():
        hidden = model.hidden_states(batch.ids, batch.positions, batch.mask, values=batch.values)
        kept = batch.labels != IGNORED
        wanted = -float(model.token_losses(hidden[kept], batch.labels[kept]).sum())
    assert scores[0, 0] == pytest.approx(wanted, abs=1e-4)


def test_reading_looks_at_soft_tokens_and_nothing_is_forecast(make_soft: Callable[..., ECGLanguageModel]) -> None:
    model = make_soft()
    row = ECGRow(values(100)[None].astype(np.float16), np.array([5, 6]), [], np.array([1, 0], np.int8))
    how = Drawing(crop=0, features=1.0)
    drawn = draw_sequence(row, model.vocabulary, (), how, np.random.default_rng(0))
    batch = collate([drawn], model.vocabulary.pad)
    read = read_positions(batch.ecg)
    assert int(read.sum()) == 100 - FIRST_POSITION
    assert (batch.ids[read] == model.vocabulary.first_code).all()
    weights = Weights(answer=1.0, forecast=1.0, reading=1.0)
    losses = language_losses(model, Heads(32, 2, weights), batch, torch.tensor([[1, 0]], dtype=torch.int8), weights)
    assert float(losses["forecast"]) == 0.0
    assert float(losses["reading"]) > 0.0
    losses["loss"].backward()
    assert model.soft is not None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.soft.parameters())


@pytest.mark.parametrize("train", ["lora", "lora+norms"])
def test_the_soft_module_trains_with_lora(make_soft: Callable[..., ECGLanguageModel], train: str) -> None:
    model = make_soft(train=train)
    assert model.soft is not None
    assert all(p.requires_grad for p in model.soft.parameters())


def test_what_belongs_to_another_front_end_is_refused(make_soft: Callable[..., Any], make_model: Any) -> None:
    with pytest.raises(CheckpointError, match="comes as codes, but the language model takes values of width 3"):
        prefix_ids(make_soft().vocabulary, "", np.arange(5))
    with pytest.raises(CheckpointError, match="comes as values of width 3, but the language model takes codes"):
        prefix_ids(make_model().vocabulary, "", values())
    with pytest.raises(CheckpointError, match="values of width 2"):
        prefix_ids(make_soft().vocabulary, "", values()[:, :2])


def test_short_ecgs_leave_out_what_fills_them_up(make_model: Callable[..., Any]) -> None:
    vocabulary = make_model().vocabulary
    ids, _ = prefix_ids(vocabulary, "", np.array([[3, 4, -1, -1], [5, 6, 7, 8]]))
    assert len(ids) == len(vocabulary.bos) + 2 + 2 + 4 + 2
    assert prompt_text("", np.array([3, 4, -1]), None).count("<ecg_") == 2

"""Continued codes are those that the model finds likely, one after another; losses are those of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.errors import CheckpointError
from heartllm.language.forecasting import code_losses, continue_codes
from heartllm.language.generation import Generator
from heartllm.language.packing import collate, pack
from heartllm.language.prompts import prefix_ids

CODES = np.random.default_rng(0).integers(0, 36, (3, 20))


@pytest.fixture
def generator(make_model: Callable[..., Any]) -> Generator:
    return Generator(make_model())


def logits_after(generator: Generator, codes: Any) -> torch.Tensor:
    """(36,) of the code that follows `codes`, without a cache."""
    vocabulary = generator.vocabulary
    ids = torch.from_numpy(np.array([*vocabulary.bos, vocabulary.start, *(codes + vocabulary.first_code)]))[None]
    with torch.inference_mode():
        hidden = generator.model.hidden_states(ids, torch.arange(ids.shape[1])[None], None)[0, -1]
        return hidden @ generator.model.output_table()[vocabulary.first_code :].T


def test_the_likeliest_code_follows_and_is_read_on(generator: Generator) -> None:
    found = continue_codes(generator, CODES, 6)
    assert found.shape == (3, 6)
    for row, said in zip(CODES, found, strict=True):
        so_far = row
        for code in said:
            logits = logits_after(generator, so_far)
            assert logits[code] >= logits.max() - 1e-4
            so_far = np.append(so_far, code)


def test_draws_choose_by_the_models_distribution_and_rows_do_not_disturb_each_other(generator: Generator) -> None:
    share = torch.softmax(logits_after(generator, CODES[0]).double(), 0).numpy()
    draws = (np.arange(2000) + 0.5)[:, None] / 2000
    found = continue_codes(generator, np.repeat(CODES[:1], 2000, 0), 1, draws)[:, 0]
    assert np.abs(np.bincount(found, minlength=36) / 2000 - share).max() < 1e-3
    several = np.random.default_rng(1).random((3, 5))
    together = continue_codes(generator, CODES, 5, several)
    for row in range(3):
        alone = continue_codes(generator, CODES[row : row + 1], 5, several[row : row + 1])
        assert np.array_equal(alone[0], together[row])


def test_the_last_draw_before_one_stays_in_the_vocabulary(generator: Generator) -> None:
    found = continue_codes(generator, CODES, 2, np.full((3, 2), np.nextafter(1.0, 0.0)))
    assert found.max() < 36


def test_losses_are_trainings_next_code_losses_over_the_codes_alone(generator: Generator) -> None:
    vocabulary = generator.vocabulary
    found = code_losses(generator, CODES, 8)
    assert found.shape == (3, 12)
    for row, losses in zip(CODES, found, strict=True):
        ids, span = prefix_ids(vocabulary, "", row)
        batch = collate([pack(ids, [], span)], vocabulary.pad)
        kept = (batch.forecast[0] >= 0).nonzero()[:, 0][8:]
        with torch.inference_mode():
            hidden = generator.model.hidden_states(batch.ids, batch.positions, None)[0]
            logits = hidden[kept] @ generator.model.output_table()[vocabulary.first_code :].T
        labels = batch.forecast[0][kept] - vocabulary.first_code
        expected = torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")
        assert np.allclose(losses, expected.numpy(), atol=1e-4)


def test_values_are_no_codes(generator: Generator) -> None:
    with pytest.raises(CheckpointError, match="takes codes"):
        continue_codes(generator, np.zeros((1, 4, 6), np.float32), 2)

"""The text side: means of a frozen model's states, whatever else stands in the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from heartllm.language.text_side import TextSide


def test_embeddings_are_means_over_each_texts_own_tokens(make_model: Callable[..., Any]) -> None:
    model = make_model()
    side = TextSide(model)
    texts = ["Sinus rhythm.", "Age: 54 years. Sex: female. Sinus bradycardia.", "", "Is it?"]
    together = side.embed(texts)
    assert together.shape == (4, side.hidden)
    assert not together[2].any()
    for index in (0, 1, 3):
        ids = torch.tensor([[*side.vocabulary.bos, *side.vocabulary.text(texts[index])]])
        states = model.backbone.model(input_ids=ids).last_hidden_state[0, len(side.vocabulary.bos) :]
        torch.testing.assert_close(together[index], states.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(side.embed(texts, batch=1), together, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(side.rows, model.table()[: side.vocabulary.base])
    assert not any(p.requires_grad for p in model.parameters())

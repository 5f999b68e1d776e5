"""Greedy answers: the shared prefix, the padding and the batch change none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.checkpoint import CheckpointConfig, new_language
from heartllm.codec.codec import CodecConfig
from heartllm.export import materialise
from heartllm.language.generation import Generator, ResponderItem
from heartllm.language.model import LanguageConfig
from heartllm.language.prompts import Layout, prefix_ids, prompt_ids

QUESTIONS = [
    "Does this ECG show symptoms of sinus bradycardia?",
    "What is the heart axis?",
    None,
    "Which noise does this ECG show, baseline drift or static noise, or is there none in any of its leads?",
    "Sex?",
]


def items(recordings: int = 3, *, blind: bool = False, features: str = "Age: 54 years.") -> list[ResponderItem]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(recordings):
        codes = None if blind else rng.integers(0, 36, 25)
        found += [ResponderItem(str(number), codes, question, features) for question in QUESTIONS]
    return found


def plain_answer(model: Any, item: ResponderItem, tokens: int, layout: Layout = "ecg-first") -> str:
    """What `transformers` alone answers to one prompt, with the ECG rows as rows of its embedding."""
    vocabulary = model.vocabulary
    inside = item.question if layout == "question-first" else None
    ids = np.concatenate(
        [
            prefix_ids(vocabulary, item.features, item.codes, inside)[0],
            prompt_ids(vocabulary, item.question, layout),
        ]
    )
    prompt = torch.from_numpy(ids)[None]
    output = model.plain.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=vocabulary.eos,
        pad_token_id=vocabulary.pad,
    )
    answer: str = vocabulary.decode(output[0, len(ids) :].tolist())
    return answer


def with_plain(model: Any, copy: Any) -> Any:
    """The model, with a materialised copy of it as `plain`."""
    ids = list(range(model.vocabulary.base, model.vocabulary.size))
    object.__setattr__(model, "plain", materialise(copy, ids, model.vocabulary.size))
    return model


@pytest.mark.parametrize("layout", ["ecg-first", "question-first"])
def test_answers_equal_those_of_plain_transformers(make_model: Callable[..., Any], layout: Layout) -> None:
    model = with_plain(make_model(), make_model())
    asked = items()
    found = list(Generator(model, layout).answer(asked, max_new_tokens=12))
    assert found == [plain_answer(model, item, 12, layout) for item in asked]
    assert len(set(found)) > 8  # the model does not say the same to everything


@pytest.mark.parametrize("kind", ["qwen2", "gpt_neox", "gpt2"])
def test_other_families_answer_as_plain_transformers(
    tokenizer: Any, backbone_folder: Callable[[str], Path], kind: str
) -> None:
    config = CheckpointConfig(
        CodecConfig(levels=(3, 3, 2, 2)), LanguageConfig(backbone=str(backbone_folder(kind))), len(tokenizer) + 5
    )
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(new_language(config, tokenizer).eval())
    model = with_plain(*models)
    asked = items(2)
    found = list(Generator(model).answer(asked, max_new_tokens=8))
    assert found == [plain_answer(model, item, 8) for item in asked]
    assert len(set(found)) > 3


@pytest.mark.parametrize("size", [1, 2, 3, 64])
def test_the_batch_size_changes_no_answer(make_model: Callable[..., Any], size: int) -> None:
    generator, asked = Generator(make_model()), items(2)
    one_by_one = [next(generator.answer([item], max_new_tokens=10)) for item in asked]
    assert list(generator.answer(asked, max_new_tokens=10, batch_size=size)) == one_by_one


def test_blind_questions_need_no_ecg_and_no_opening_token(make_model: Callable[..., Any], vocabulary: Any) -> None:
    model = make_model()
    asked = items(2, blind=True)
    found = list(Generator(model).answer(asked, max_new_tokens=6))
    assert found[:5] == found[5:]  # nothing tells the recordings apart
    bare = PreTrainedWithoutOpening(vocabulary.tokenizer)
    model.vocabulary = replace(vocabulary, tokenizer=bare)
    answers = list(Generator(model).answer(items(1, blind=True, features=""), max_new_tokens=6))
    assert len(answers) == 5


class PreTrainedWithoutOpening:
    """A tokenizer that names no <bos>, as Qwen's."""

    bos_token_id = None

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def test_the_answer_stops_at_the_end_token_and_at_the_limit(make_model: Callable[..., Any]) -> None:
    model = make_model()
    generator = Generator(model)
    with torch.no_grad():
        long = list(generator.answer(items(1), max_new_tokens=20))
        short = list(generator.answer(items(1), max_new_tokens=2))
        assert all(whole.startswith(part.rstrip("\ufffd")) for whole, part in zip(long, short, strict=True))
        generator.output = generator.output.clone()
        generator.output[:] = 0
        generator.output[model.vocabulary.eos] = 1e-9  # every logit is zero but that of the end token
        state = Generator.answer(generator, items(1), max_new_tokens=5)
        assert len(list(state)) == 5

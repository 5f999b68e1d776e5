"""Packed tuning against one question a sequence: the same model, the same questions, the same losses, in one run.

The packed layout computes the 313 codes of an ECG once for its 16 questions; the other one sixteen times.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.language.model import ECGLanguageModel, LanguageConfig, build_tiny  # noqa: E402
from heartllm.language.packing import IGNORED, Packed, collate, pack  # noqa: E402
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids  # noqa: E402
from heartllm.language.vocabulary import Vocabulary, train_text_tokenizer  # noqa: E402
from heartllm.training.objective import Weights, language_losses  # noqa: E402

CODES, QUESTIONS, RECORDINGS, LEAST_RATIO = 313, 16, 4, 5.0
LEVELS = (6, 6, 6, 6)
ATTRIBUTES = [
    ("sinus bradycardia", "yes"),
    ("left ventricular hypertrophy", "no"),
    ("non-diagnostic t abnormalities", "no"),
    ("first degree av block", "yes"),
]
FORMS = [
    "Does this ECG show symptoms of {}?",
    "Is {} recognizable from this ECG?",
    "Which symptom does this ECG show, {} or none?",
    "Does lead V6 of this ECG show {}?",
]
FEATURES = "Age: 54 years. Sex: female. Height: 165 cm. Weight: 59 kg. Device: CS-12."


def pairs() -> list[tuple[str, str]]:
    asked = [(form.format(name), answer) for form in FORMS for name, answer in ATTRIBUTES]
    assert len(asked) == QUESTIONS
    return asked


@pytest.fixture(scope="module")
def model() -> ECGLanguageModel:
    """The reference size: width 128, 4 layers, 1,296 codes."""
    corpus = [FEATURES] + [f"Question: {question} Answer: {answer}" for question, answer in pairs()]
    tokenizer = train_text_tokenizer(corpus * 3, 1024)
    vocabulary = Vocabulary(tokenizer, len(tokenizer), 1296)
    config = LanguageConfig()
    return ECGLanguageModel(build_tiny(config.tiny, vocabulary, 0), vocabulary, LEVELS, config)


def layouts(vocabulary: Vocabulary) -> tuple[list[Packed], list[Packed]]:
    """The same recordings and questions, packed and one by one."""
    rng = np.random.default_rng(0)
    packed, single = [], []
    for _ in range(RECORDINGS):
        prefix, span = prefix_ids(vocabulary, FEATURES, rng.integers(0, 1296, CODES))
        asked = [(prompt_ids(vocabulary, q), answer_ids(vocabulary, a)) for q, a in pairs()]
        packed.append(pack(prefix, asked, span))
        single += [pack(prefix, [pair], span) for pair in asked]
    return packed, single


def step(model: ECGLanguageModel, sequences: list[Packed], batch: int) -> float:
    """Forward and backward over all sequences, `batch` at a time; the mean answer loss in nats."""
    model.zero_grad()
    total = sum(int((sequence.labels != IGNORED).sum()) for sequence in sequences)
    loss_sum = 0.0
    for first in range(0, len(sequences), batch):
        part = collate(sequences[first : first + batch], model.vocabulary.pad)
        share = int((part.labels != IGNORED).sum()) / total
        findings = torch.zeros(len(part.ids), 0, dtype=torch.int8)
        loss = language_losses(model, None, part, findings, Weights(1.0, 0.0, 0.0))["loss"] * share
        loss.backward()
        loss_sum += float(loss.detach())
    return loss_sum


@pytest.mark.slow
@pytest.mark.benchmark(group="training")
def test_packed_tuning_handles_five_times_the_pairs(model: ECGLanguageModel, race: Any) -> None:
    packed, single = layouts(model.vocabulary)
    one_by_one = step(model, single, 16)  # also warms up
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert step(model, packed, 4) == pytest.approx(one_by_one, abs=1e-4)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-4, rtol=1e-3)
    tokens = {name: sum(len(s.ids) for s in part) for name, part in (("packed", packed), ("single", single))}
    race(
        "tuning step, packed",
        unit="question-answer pair",
        ours=lambda: step(model, packed, 4),
        plain=lambda: step(model, single, 16),
        plain_is="one question a sequence",
        units=RECORDINGS * QUESTIONS,
        rounds=3,
        warm=False,
        least=LEAST_RATIO,
        aim=0.9 * tokens["single"] / tokens["packed"],
    )

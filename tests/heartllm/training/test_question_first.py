"""The paper's order of question and ECG: what training draws is what generation asks."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids
from heartllm.language.vocabulary import Vocabulary, train_text_tokenizer
from heartllm.training.examples import EXACT, ECGRow, draw_sequence, split_prompt

LEVELS = (6, 6, 6, 6)
QUESTION = "Does this ECG show symptoms of x?"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    tokenizer = train_text_tokenizer([f"Question: {QUESTION} Answer: yes", "Report: sinus rhythm"], 400)
    return Vocabulary(tokenizer, len(tokenizer), 1296)


def test_training_draws_the_sequence_that_generation_asks_with(vocabulary: Vocabulary) -> None:
    codes = np.arange(313)
    pairs = [(prompt_ids(vocabulary, QUESTION), answer_ids(vocabulary, "yes"))]
    row = ECGRow(codes[None].astype(np.uint16), np.array(vocabulary.text("Age: 4.\n")), pairs, np.zeros(1, np.int8))
    drawn = draw_sequence(row, vocabulary, LEVELS, replace(EXACT, layout="question-first"), np.random.default_rng(0))
    prefix, span = prefix_ids(vocabulary, "Age: 4.", codes, QUESTION)
    asked = [prefix, prompt_ids(vocabulary, QUESTION, "question-first"), answer_ids(vocabulary, "yes")]
    np.testing.assert_array_equal(drawn.ids, np.concatenate(asked))
    np.testing.assert_array_equal(np.flatnonzero(drawn.forecast >= 0), np.arange(span[0] - 1, span[1] - 1))


def test_one_question_a_sequence_and_reports_after_the_ecg(vocabulary: Vocabulary) -> None:
    pairs = [(prompt_ids(vocabulary, f"{QUESTION} {i}"), answer_ids(vocabulary, "no")) for i in range(5)]
    row = ECGRow(np.zeros((1, 313), np.uint16), np.zeros(0, np.int64), pairs, np.zeros(1, np.int8))
    drawn = draw_sequence(row, vocabulary, LEVELS, replace(EXACT, layout="question-first"), np.random.default_rng(0))
    assert drawn.branch.max() == 1
    report = prompt_ids(vocabulary, None)
    front, prompt = split_prompt(report, vocabulary)
    assert len(front) == 0
    np.testing.assert_array_equal(prompt, report)

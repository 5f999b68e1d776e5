"""The vocabulary: text survives, codes have their ids, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.errors import CheckpointError
from heartllm.language.prompts import answer_ids, answer_text, prefix_ids, prompt_ids, prompt_text
from heartllm.language.vocabulary import END, START, code_token, load_text_tokenizer


@given(text=st.text(max_size=60))
def test_text_round_trip(vocabulary: Any, text: str) -> None:
    ids = vocabulary.text(text)
    assert all(0 <= i < vocabulary.base for i in ids)
    specials = (vocabulary.tokenizer.pad_token, vocabulary.tokenizer.bos_token, vocabulary.tokenizer.eos_token)
    if not any(special in text for special in specials):
        assert vocabulary.decode(ids) == text.strip()


@given(codes=st.lists(st.integers(0, 35), max_size=40))
def test_codes_lie_between_start_and_end_and_come_back(vocabulary: Any, codes: list[int]) -> None:
    ids = vocabulary.ecg(np.array(codes, np.int64))
    assert ids[0] == vocabulary.start
    assert ids[-1] == vocabulary.end
    assert (ids[1:-1] - vocabulary.first_code).tolist() == codes
    assert ids.max() < vocabulary.size
    assert vocabulary.decode(ids.tolist()) == ""


@pytest.mark.parametrize("bad", [[0, 36], [-1, 3], [2, 2**31]])
def test_codes_outside_the_vocabulary_are_refused(vocabulary: Any, bad: list[int]) -> None:
    with pytest.raises(CheckpointError, match="does not fit a vocabulary of 36 codes"):
        vocabulary.ecg(np.array(bad))


def test_digits_have_tokens_of_their_own(vocabulary: Any) -> None:
    assert len(vocabulary.text("120")) == 3
    assert vocabulary.text("12") == vocabulary.text("1") + vocabulary.text("2")


def test_code_tokens_sort_as_their_codes() -> None:
    names = [code_token(code) for code in range(1296)]
    assert names == sorted(names)
    assert names[7] == "<ecg_0007>"


def test_the_tokenizer_reopens_from_its_files(vocabulary: Any, tmp_path: Path) -> None:
    vocabulary.tokenizer.save_pretrained(tmp_path)
    again = load_text_tokenizer(tmp_path)
    text = "Question: what? Answer: 54 years; ümlaut"
    assert again.encode(text, add_special_tokens=False) == vocabulary.text(text)
    assert (again.eos_token_id, again.bos_token_id) == (vocabulary.eos, vocabulary.bos[0])


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="text tokenizer cannot be read"):
        load_text_tokenizer(tmp_path / "nothing")


def test_prompts_put_the_ecg_where_the_layout_says(vocabulary: Any) -> None:
    codes = np.arange(5)
    first, span = prefix_ids(vocabulary, "Age: 54 years.", codes)
    assert first[0] == vocabulary.bos[0]
    assert (first[span[0] : span[1]] - vocabulary.first_code).tolist() == codes.tolist()
    assert first[-1] == vocabulary.end
    asked, _ = prefix_ids(vocabulary, "", codes, "What is the heart axis?")
    assert vocabulary.decode(asked.tolist()) == "Question: What is the heart axis?"
    assert vocabulary.decode(prompt_ids(vocabulary, "Q?").tolist()) == "Question: Q? Answer:"
    assert vocabulary.decode(prompt_ids(vocabulary, "Q?", "question-first").tolist()) == "Answer:"
    assert vocabulary.decode(prompt_ids(vocabulary, None).tolist()) == "Report:"
    blind, span = prefix_ids(vocabulary, "", None)
    assert blind.tolist() == vocabulary.bos
    assert span[0] == span[1]


def test_two_ecgs_are_two_blocks_in_their_order(vocabulary: Any) -> None:
    first, second = np.arange(5), np.arange(5)[::-1]
    ids, span = prefix_ids(vocabulary, "Age: 54 years.", np.stack([first, second]))
    one, one_span = prefix_ids(vocabulary, "Age: 54 years.", first)
    assert ids.tolist() == [*one.tolist(), *vocabulary.ecg(second).tolist()]
    assert span == (one_span[0], len(ids) - 1)
    text = prompt_text("", np.stack([first, second]), "Which?")
    assert text.count(START) == text.count(END) == 2
    assert text.endswith(f"{END}Question: Which? Answer:")


def test_answers_close_with_the_end_token(vocabulary: Any) -> None:
    ids = answer_ids(vocabulary, answer_text(["left axis deviation", "a, b"]))
    assert ids[-1] == vocabulary.eos
    assert vocabulary.eos not in ids[:-1]
    assert vocabulary.decode(ids[:-1].tolist()) == "left axis deviation; a, b"

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.data.records import ANSWER_SEPARATOR
from heartllm_eval.metrics import get_metric
from heartllm_eval.metrics.exact_match import (
    extract_options,
    join_answers,
    normalise,
    parse_answers,
    reference_set,
)
from heartllm_eval.schema import Request

# Words as ECG-QA's classes have them: letters, spaces, commas, slashes, brackets; no period, no semicolon.
ANSWERS = st.text(string.ascii_letters + " ,/()-", min_size=1, max_size=30).filter(lambda text: bool(text.strip()))
BIGEMINY = "bigeminal pattern (unknown origin, supraventricular, or ventricular)"


def ask(*answer: str, options: tuple[str, ...] = ()) -> Request:
    return Request("1", "qa", references=answer, options=options)


def right(metric: str, prediction: str, request: Request) -> bool:
    correct, counted = get_metric(metric).statistics(prediction, request)
    assert counted == 1.0
    return correct == 1.0


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("yes", ("yes",)),
        ("  YES.\n", ("yes",)),
        ("lead I; lead aVR", ("lead aVR", "lead I")),
        ("lead avr;lead i;lead I.", ("lead aVR", "lead I")),
        ("lead I. lead aVR.", ("lead aVR", "lead I")),
        (BIGEMINY, (BIGEMINY,)),
        ("none", ()),
        ("yes\u2026", ("yes",)),
        ("lead I\uff1blead aVR\uff0e", ("lead aVR", "lead I")),
    ],
)
def test_strict_forgives_form(prediction: str, answer: tuple[str, ...]) -> None:
    assert right("exact_match.strict", prediction, ask(*answer))


@pytest.mark.parametrize(
    ("prediction", "answer"),
    [
        ("", ("none",)),
        ("", ()),
        ("yes no", ("yes",)),
        ("yes; no", ("yes",)),
        ("lead I", ("lead I", "lead II")),
        ("not sure", ("no",)),
    ],
)
def test_strict_forgives_nothing_else(prediction: str, answer: tuple[str, ...]) -> None:
    assert not right("exact_match.strict", prediction, ask(*answer))


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("yes", ("yes",), True),
        ("yes.", ("yes",), False),  # splits to {"yes", ""}
        ("yes.yes", ("yes",), True),
        ("Yes", ("yes",), False),
        ("a.b", ("b", "a"), True),
        ("a. b", ("a", "b"), False),  # " b" is not stripped
        (" yes ", ("yes",), True),
    ],
)
def test_heartllm_keeps_the_authors_quirks(prediction: str, answer: tuple[str, ...], expected: bool) -> None:
    assert right("exact_match.heartllm", prediction, ask(*answer)) is expected


VERIFY = ("no", "not sure", "yes")
BLOCKS = ("complete right bundle branch block", "incomplete right bundle branch block", "none")


@pytest.mark.parametrize(
    ("prediction", "options", "found"),
    [
        ("I am not sure about it.", VERIFY, {"not sure"}),
        ("No, nothing of note is known.", VERIFY, {"no"}),
        ("There is an Incomplete Right Bundle Branch Block", BLOCKS, {"incomplete right bundle branch block"}),
        ("lead AVR and lead i", ("lead aVR", "lead I", "lead II"), {"lead avr", "lead i"}),
        ("lead II", ("lead I", "lead II", "lead III"), {"lead ii"}),
        ("nothing", VERIFY, set()),
    ],
)
def test_official_llm_finds_options(prediction: str, options: tuple[str, ...], found: set[str]) -> None:
    assert extract_options(prediction, options) == found


def test_official_llm_leaves_out_requests_without_options() -> None:
    assert get_metric("exact_match.official_llm").statistics("yes", ask("yes")) == (0.0, 0.0)


@given(st.sets(ANSWERS, min_size=1, max_size=5))
def test_joined_answers_are_read_back(answers: set[str]) -> None:
    assert parse_answers(join_answers(sorted(answers))) == {normalise(answer) for answer in answers}
    assert right("exact_match.strict", join_answers(sorted(answers, reverse=True)), ask(*sorted(answers)))


@given(st.text(max_size=60))
def test_parsing_is_idempotent_and_blind_to_case_and_space(text: str) -> None:
    parsed = parse_answers(text)
    assert parse_answers(ANSWER_SEPARATOR.join(sorted(parsed))) == parsed
    assert parse_answers(f"\t{text.replace(' ', '  ')} ") == parsed
    assert "" not in parsed


@given(st.text(max_size=60))
def test_a_text_is_always_its_own_answer(text: str) -> None:
    assert right("exact_match.strict", text, ask(text)) or not parse_answers(text)
    assert reference_set((text,)) == parse_answers(text) or not parse_answers(text)


@given(st.lists(ANSWERS, min_size=1, max_size=6, unique_by=normalise), st.data())
def test_an_option_alone_is_extracted_as_itself(options: list[str], data: st.DataObject) -> None:
    chosen = data.draw(st.sampled_from(options))
    edges_are_words = normalise(chosen)[0].isalpha() and normalise(chosen)[-1].isalpha()
    if edges_are_words:
        assert extract_options(chosen, tuple(options)) == {normalise(chosen)}

"""What an adapter gives is looked at before it is kept."""

from __future__ import annotations

import math
from typing import Any

import pytest

from heartllm.errors import DataError
from heartllm_eval.asking import _checked
from heartllm_eval.models.base import Task
from heartllm_eval.schema import Prediction


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Prediction("7", None), "qa: the model answered '7' with NoneType, not text"),  # type: ignore[arg-type]
        (("7", "yes"), "qa: the model gave tuple, not Prediction"),
        (Prediction("7", "", error=404), "qa: the error of '7' is int, not text"),  # type: ignore[arg-type]
    ],
)
def test_answers_of_another_kind_are_refused(given: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        _checked(given, Task("qa", "qa", ()))


def test_an_empty_answer_is_an_answer() -> None:
    assert _checked(Prediction("7", ""), Task("qa", "qa", ())) == Prediction("7", "")


def test_what_no_file_can_hold_is_mended() -> None:
    given = Prediction("7", "normal \ud83d", "half \udc00", {"yes": -0.5, "no": -math.inf, "not sure": math.nan})
    assert _checked(given, Task("qa", "qa", ())) == Prediction("7", "normal \ufffd", "half \ufffd", {"yes": -0.5})
    assert _checked(Prediction("7", "\ud83d\ude00 é"), Task("qa", "qa", ())).text == "\U0001f600 é"

"""What an adapter gives is looked at before it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from heartllm.errors import DataError
from heartllm_eval.asking import _check
from heartllm_eval.models.base import Task
from heartllm_eval.schema import Prediction


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (Prediction("7", None), "qa: the model answered '7' with NoneType, not text"),  # type: ignore[arg-type]
        (("7", "yes"), "qa: the model gave tuple, not Prediction"),
    ],
)
def test_answers_of_another_kind_are_refused(given: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        _check(given, Task("qa", "qa", ()))


def test_an_empty_answer_is_an_answer() -> None:
    _check(Prediction("7", ""), Task("qa", "qa", ()))

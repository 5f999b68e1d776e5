"""Training in less memory: layers whose states are computed twice, and what to tell somebody who has too little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heartllm.errors import HeartLLMError, UsageError
from heartllm.language.model import ECGLanguageModel


@contextmanager
def recomputed_layers(model: ECGLanguageModel) -> Iterator[None]:
    """Gradient checkpointing: decoder layers keep their inputs alone, and are computed again for the backward pass.

    Raises:
        UsageError: if the backbone's family cannot.
    """
    if not getattr(model.body, "supports_gradient_checkpointing", False):
        raise UsageError(
            f"a {type(model.body).__name__} cannot compute its layers again",
            where="checkpointing",
            remedy="Write checkpointing = false, and accumulate over smaller parts.",
        )
    model.body.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        model.body.gradient_checkpointing_disable()


def too_large(batch: int, count: int, title: str) -> HeartLLMError:
    """What to say where one of `count` parts of a batch did not fit."""
    at_once = -(-batch // count)
    if at_once > 1:
        fewer = min(2 * count, batch)
        remedy = (
            f"Set accumulate = {fewer} in the stage's loop table: {-(-batch // fewer)} at once and the same result; "
            "checkpointing = true on a language stage takes less, too."
        )
    else:
        remedy = "Set checkpointing = true on a language stage, draw fewer questions, or take a smaller model."
    return HeartLLMError(
        f"not enough memory for {at_once} of a step's {batch} items at once", where=title, remedy=remedy
    )

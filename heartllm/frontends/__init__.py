"""Front-ends by name: what a recipe's `[frontend] kind = ...` and a checkpoint's `frontend.toml` may say.

To add one: a subclass of `heartllm.frontends.base.FrontEnd` in `heartllm/frontends/<kind>.py`, with

    kind = "<kind>"; config_type = <its frozen dataclass>; __init__(self, config)

one line in `KINDS` below, and one in `TRAINERS` of `heartllm/training/frontends.py` for the function that trains it.
Nothing else in the project asks for a kind by name: store, prompts, model, checkpoint and command line go by
`codes` and `width` alone. Nothing is imported before it is used.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.config import from_dict
from heartllm.errors import UsageError

if TYPE_CHECKING:
    from heartllm.frontends.base import FrontEnd

KINDS = {
    "fsq": "heartllm.frontends.fsq:FSQCodes",
    "continuous": "heartllm.frontends.continuous:Continuous",
    "test": "heartllm.frontends.test:TEST",
    "clip": "heartllm.frontends.clip:Clip",
    "time_llm": "heartllm.frontends.time_llm:TimeLLM",
    "ecg_byte": "heartllm.frontends.ecg_byte:ECGByte",
}


def frontend_class(kind: str, where: str | Path = "frontend") -> type[FrontEnd]:
    """The class of a kind.

    Raises:
        UsageError: if there is none of that name.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(KINDS)}."
        raise UsageError(f"unknown kind of front-end {kind!r}", where=where, remedy=remedy)
    module, _, name = KINDS[kind].partition(":")
    found: type[FrontEnd] = getattr(import_module(module), name)
    return found


def build(kind: str, settings: dict[str, Any], where: str | Path = "frontend") -> FrontEnd:
    """A front-end as its settings describe it, before training."""
    found = frontend_class(kind, where)
    make: Any = found
    made: FrontEnd = make(from_dict(found.config_type, settings, where=where))
    return made


__all__ = ["KINDS", "build", "frontend_class"]

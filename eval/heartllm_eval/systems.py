"""Which systems a run asks: the model, and the controls that its numbers are to be read beside.

    majority   the training split's most common answer to the question        constant   ... to any question
    retrieval  the nearest training ECG's answer or report                    gold       the references: the ceiling
    blind      the model without the ECG; of a HeartLLM checkpoint, the one that was trained without
    shuffled   the model with another patient's ECG

Blind and shuffled can be had of every adapter that takes `ecg=none` and `ecg=shuffled`; each costs what the model does.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from heartllm.errors import UsageError

MODEL = "model"
OWN = ("majority", "constant", "retrieval", "gold")  # adapters of their own
OF_THE_MODEL = ("blind", "shuffled")  # the model, asked otherwise
CONTROLS = ("majority", "constant", "retrieval", "blind", "shuffled", "gold")
LOCAL = ("heartllm", "authors", "hf")  # whose default controls are also blind and shuffled: they cost time, no money


@dataclass(frozen=True)
class System:
    """A model or control of a run: its name in the tables, and how to make it."""

    name: str
    kind: str
    model_args: Mapping[str, str]


def parse_controls(text: str) -> tuple[str, ...]:
    """ "majority,gold" as names, in the order of the tables; "all" stands for all of them, "none" for none.

    Raises:
        UsageError: for a name that is no control.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in (*CONTROLS, "all", "none"):
            near = difflib.get_close_matches(name, CONTROLS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(CONTROLS)}, all, none."
            raise UsageError(f"unknown control {name!r}", where="--control", remedy=hint)
    if "all" in names:
        return CONTROLS
    return tuple(name for name in CONTROLS if name in names)


def with_controls(
    kind: str,
    model_args: Mapping[str, str],
    *,
    controls: bool,
    names: Sequence[str] | None,
    blind: Path | None,
    warn: Callable[[str], None],
) -> list[System]:
    """The model, then its controls.

    Args:
        kind, model_args: the model.
        controls: take the default ones: majority, and for a local model also blind and shuffled.
        names: take exactly these instead; what the model cannot give of them is an error if it was named alone.
        blind: the checkpoint that was trained without ECGs.
        warn: is told of controls that are left out.

    Raises:
        UsageError: for a control that the model cannot have.
    """
    systems = [System(MODEL, kind, model_args)]
    if names is None:
        names = () if not controls else ("majority", *OF_THE_MODEL) if kind in LOCAL else ("majority",)
        strict = False
    else:
        strict = tuple(names) != CONTROLS  # "all" is whatever there is
    for name in names:
        if name == kind:
            continue
        if name in OWN:
            systems.append(System(name, name, {}))
            continue
        found = _of_the_model(name, kind, model_args, blind)
        if isinstance(found, System):
            systems.append(found)
        elif strict or (name == "blind" and blind is not None):
            raise UsageError(found, where=f"--control {name}", remedy="Leave this control out, or name --blind DIR.")
        else:
            warn(f"no {name} control: {found}")
    return systems


def _of_the_model(name: str, kind: str, model_args: Mapping[str, str], blind: Path | None) -> System | str:
    """The control, or why there is none."""
    if "ecg" not in _parameters(kind):
        return f"{kind} takes no argument 'ecg'"
    if model_args.get("ecg", "true") != "true":
        return f"the model itself is asked with ecg={model_args['ecg']}"
    if name == "blind" and kind == "heartllm":
        folder = blind or Path(model_args.get("checkpoint", ".")) / "blind"
        if blind is not None and not folder.is_dir():
            raise UsageError(
                "no such folder", where=f"--blind {folder}", remedy="Name the checkpoint that was trained without ECGs."
            )
        if not folder.is_dir():
            return f"{folder} is absent, and no --blind DIR was given"
        return System(name, kind, {**model_args, "checkpoint": str(folder), "ecg": "none"})
    return System(name, kind, {**model_args, "ecg": "none" if name == "blind" else "shuffled"})


def _parameters(kind: str) -> Sequence[str]:
    from heartllm_eval.models.base import adapter_class, known_kinds

    return tuple(inspect.signature(adapter_class(kind)).parameters) if kind in known_kinds() else ()

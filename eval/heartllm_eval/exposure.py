"""Is a number in-distribution or zero-shot? Told from what a checkpoint says it was trained on, by hash, not by name.

`checkpoint.toml` holds "dataset:hash" of each training split; the hash is over the ids of its recordings. So another
split of a dataset of the same name is noticed, and so is the same split under another name. What the hash does not hold
is the waveforms: a synthetic site drawn anew from another seed has the same ids, and passes for the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from heartllm.config import read_toml
from heartllm.errors import HeartLLMError
from heartllm_eval.requests import Workspace
from heartllm_eval.suite import Suite

Status = Literal["in-distribution", "zero-shot", "seen", "unclear", "unknown"]
MOST_VIEWS = 16  # tokenisations of a training recording, which the hash counts in; recipes use up to 8


@dataclass(frozen=True)
class Exposure:
    """What a model has seen of what it is asked about.

    Attributes:
        status: "in-distribution" (trained on the training split of the suite's dataset), "zero-shot" (on nothing of
            it), "seen" (on the very split that is asked about), "unclear" (on other recordings of a dataset of this
            name), or "unknown" (the model does not say).
        why: the same in words.
        trained_on: the datasets that the model names.
    """

    status: Status
    why: str
    trained_on: tuple[str, ...] = ()


def exposure(suite: Suite, trained_on: Sequence[str] | None, workspace: Workspace) -> Exposure:
    """Holds a model's training data against a suite's.

    Args:
        suite: what is asked.
        trained_on: "dataset:hash" of each training split; None where the model does not say.
        workspace: opens the suite's dataset.
    """
    if not trained_on:
        return Exposure("unknown", "the model does not say what it was trained on")
    stated = dict(part.partition(":")[::2] for part in trained_on)
    names, asked = tuple(stated), suite.dataset
    try:
        dataset = workspace.dataset(asked)
        for split, status in ((suite.split, "seen"), (suite.train_split, "in-distribution")):
            ids = [entry.record_id for entry in dataset.entries(split)]
            same = [name for name, known in stated.items() if ids and known in split_hashes(name, ids)]
            if same:
                called = f" (which it calls {same[0]})" if same[0] != asked else ""
                why = f"trained on the {split} split of {asked}{called}, by the hash of its ids"
                return Exposure("seen" if status == "seen" else "in-distribution", why, names)
    except HeartLLMError:
        pass  # without the recordings, names must do
    if asked in stated:
        why = f"trained on data called {asked}, but not on the training split that is here, by the hash of its ids"
        return Exposure("unclear", why, names)
    also = [name for name in names if suite.zero_shot_from and name not in suite.zero_shot_from]
    extra = f"; more than the suite means, which is {', '.join(suite.zero_shot_from)}" if also else ""
    return Exposure("zero-shot", f"trained on {', '.join(names)} and on nothing of {asked}{extra}", names)


def stated_training(checkpoint: Path) -> tuple[str, ...]:
    """ "dataset:hash" of each training split that a checkpoint names; none where it names none. Loads no model."""
    try:
        stated = read_toml(checkpoint / "checkpoint.toml").get("data", ())
    except HeartLLMError:
        return ()
    return tuple(part for part in stated if isinstance(part, str)) if isinstance(stated, list) else ()


def split_hashes(name: str, ids: Sequence[str]) -> set[str]:
    """The hashes that a token store of these recordings may carry: `heartllm.codec.store.fingerprint` of the dataset's
    name, the number of views, and the sorted ids."""
    tail = "\0".join(sorted(ids)).encode()
    return {hashlib.sha256(f"{name}\0{views}\0".encode() + tail).hexdigest() for views in range(1, MOST_VIEWS + 1)}


def warning(suite: Suite, found: Exposure) -> str | None:
    """What a user must be told before reading the numbers."""
    if found.status == "seen":
        return f"{suite.name}: the model was {found.why}: its numbers there are no measure of anything"
    if suite.zero_shot_from and found.status in ("in-distribution", "unclear"):
        return f"{suite.name} is meant to be zero-shot, but the model was {found.why}"
    return None

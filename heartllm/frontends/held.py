"""A front-end of a stranger's checkpoint: built once its settings are known to describe what the weights file holds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from heartllm.codec.store import FILL as MOST_CODES
from heartllm.errors import CheckpointError, HeartLLMError
from heartllm.frontends.base import FrontEnd
from heartllm.untrusted import read_safetensors_header

AGAIN = "Fetch the checkpoint again."
TOO_LARGE = "the configuration describes a larger model than the file holds"


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape in a safetensors file.

    Raises:
        CheckpointError: if it is none, or holds less than it says.
    """
    try:
        return read_safetensors_header(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=path, remedy=AGAIN) from None


def _leaves(value: Any) -> Iterator[Any]:
    """Every single value of settings, also of tables and lists within."""
    if isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(part)
    else:
        yield value


def build_held(make: Callable[[], FrontEnd], settings: Mapping[str, Any], weights: Path) -> FrontEnd:
    """A front-end, once it is sure that its settings describe what the weights file holds: they may say anything.

    It is made without memory first (torch's "meta" device), and its tensors are compared with those of the file.

    Raises:
        CheckpointError: if they differ.
    """
    import torch

    shapes = shapes_of(weights)
    stored = sum(map(math.prod, shapes.values()))
    sizes = list(_leaves(settings))
    most = max(stored, MOST_CODES)  # of anything that is counted; layers have a tensor each, at least
    if any(isinstance(size, int) and not -1 <= size <= most for size in sizes) or any(
        isinstance(size := settings.get(name, 0), int) and size > len(shapes) for name in ("layers", "blocks")
    ):
        raise CheckpointError(TOO_LARGE, where=weights, remedy=AGAIN)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of layers without a weight
            described = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    except HeartLLMError:
        raise
    except Exception as error:  # what layers say of sizes that no layer has
        raise CheckpointError(f"its configuration describes no model ({error})", where=weights, remedy=AGAIN) from None
    if any(shapes.get(name, shape) != shape for name, shape in described.items()):
        name = next(name for name, shape in described.items() if shapes.get(name, shape) != shape)
        raise CheckpointError(f"does not fit its configuration ({name})", where=weights, remedy=AGAIN)
    if sum(map(math.prod, described.values())) > stored:
        raise CheckpointError(TOO_LARGE, where=weights, remedy=AGAIN)
    return make()

"""What files written by `torch.save` hold, checked name by name; `heartllm.untrusted` opens them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heartllm.errors import CheckpointError
from heartllm.untrusted import FETCH

LISTED = 10  # names that a message shows


def as_tensors(found: Any, path: Path, what: str) -> dict[str, Tensor]:
    """`found` as a dictionary of dense tensors by name, each of as many numbers as the file brought for it.

    Raises:
        CheckpointError: if it is anything else.
    """
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"holds no {what}", where=path, remedy=FETCH)
    for name, value in found.items():
        plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
        if not isinstance(name, str) or not plain or value.untyped_storage().nbytes() < value.nbytes:
            raise CheckpointError(f"{what}: {str(name)[:80]!r} is no plain tensor", where=path, remedy=FETCH)
    return {name: value.detach() for name, value in found.items()}  # a parameter is a tensor, too


def check_names(found: Collection[str], expected: Collection[str], path: Path, remedy: str = FETCH) -> None:
    """Refuses a file that lacks a name or has one too many.

    Raises:
        CheckpointError: listing the first ten of each.
    """
    found, expected = set(found), set(expected)
    parts = [
        f"{len(names)} {title} ({listed(names)})"
        for title, names in (("tensors missing", expected - found), ("tensors unexpected", found - expected))
        if names
    ]
    if parts:
        raise CheckpointError("; ".join(parts), where=path, remedy=remedy)


def listed(names: Collection[str]) -> str:
    """The first ten names in order, and how many more there are."""
    shown = ", ".join(name[:120] for name in sorted(names)[:LISTED])
    return shown + (f", and {len(names) - LISTED} more" if len(names) > LISTED else "")


def check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], path: Path) -> None:
    """Refuses a tensor of another shape, of whole numbers, or with NaN or infinity in it.

    Raises:
        CheckpointError: naming the tensor and both shapes.
    """
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{name} has shape {list(tensor.shape)}, not {list(shape)}", where=path, remedy=FETCH)
    if not tensor.is_floating_point():
        raise CheckpointError(f"{name} holds {tensor.dtype}, not real numbers", where=path, remedy=FETCH)
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{name} holds NaN or infinity", where=path, remedy=FETCH)

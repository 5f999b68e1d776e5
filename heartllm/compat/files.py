"""Files written by `torch.save`, opened without executing what they hold, and checked name by name."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heartllm.errors import CheckpointError, UsageError

LISTED = 10  # names that a message shows
SAFE_TORCH = (2, 6)  # before it, weights_only could be got around (CVE-2025-32434)
FETCH = "Fetch the file again from where it was published."


def read_object(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU and mapped from disk: tensors, numbers, texts, lists and dictionaries only.

    Raises:
        CheckpointError: if the file is absent, damaged, or holds anything that would have to be executed.
        UsageError: if the installed torch cannot be trusted to refuse such a file.
    """
    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < SAFE_TORCH:
        raise UsageError(
            f"torch {torch.__version__} can be made to execute what a file of another person holds (CVE-2025-32434)",
            where=path,
            remedy="Install a newer one: pip install 'torch>=2.6'",
        )
    if not path.is_file():
        raise CheckpointError("no such file", where=path, remedy="Check the path.")
    zipped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise CheckpointError(
                "holds something other than tensors, which loading would have to execute",
                where=path,
                remedy="Do not use it, unless whoever wrote it can be trusted; a state dict alone is enough.",
            ) from None
        raise CheckpointError("is damaged or no file of torch.save", where=path, remedy=FETCH) from None
    except Exception:  # a damaged or hostile file can make the reader raise anything
        raise CheckpointError("is damaged or no file of torch.save", where=path, remedy=FETCH) from None


def as_tensors(found: Any, path: Path, what: str) -> dict[str, Tensor]:
    """`found` as a dictionary of dense tensors by name.

    Raises:
        CheckpointError: if it is anything else.
    """
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(f"holds no {what}", where=path, remedy=FETCH)
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CheckpointError(f"{what}: {str(name)[:80]!r} is no plain tensor", where=path, remedy=FETCH)
    return dict(found)


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

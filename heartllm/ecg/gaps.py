"""Missing samples (NaN): refused, or interpolated over short gaps and said so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from heartllm.errors import DataError

NanPolicy = Literal["refuse", "interpolate", "keep"]


def runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The runs of True in (T,), as (start, length)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(start), int(stop - start)) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def fill_gaps(signal: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """A copy of (C, T) with every missing sample on the line between its neighbours.

    At the ends the nearest value is held; a row without any value becomes 0.
    """
    filled = signal.copy()
    places = np.arange(signal.shape[1])
    for row in filled:
        missing = ~np.isfinite(row)
        if missing.any():
            row[missing] = 0.0 if missing.all() else np.interp(places[missing], places[~missing], row[~missing])
    return filled


def apply_nan_policy(
    signal: npt.NDArray[np.floating],
    names: Sequence[str],
    rate: float,
    policy: NanPolicy,
    max_gap: float,
    where: str | Path | None,
) -> tuple[npt.NDArray[np.floating], list[str]]:
    """Applies the policy to (C, T); returns the signal and notes.

    Raises:
        DataError: for missing samples under "refuse", and for gaps longer than `max_gap` seconds under "interpolate".
    """
    if policy == "keep" or np.isfinite(signal).all():
        return signal, []
    notes = []
    for name, row in zip(names, signal, strict=True):
        found = runs(~np.isfinite(row))
        if not found:
            continue
        count, longest = sum(length for _, length in found), max(length for _, length in found)
        size = f"{count} missing samples (NaN) in lead {name}, the longest gap {1000 * longest / rate:.0f} ms"
        if policy == "refuse":
            raise DataError(
                size,
                where=where,
                remedy=f"Pass nan_policy='interpolate' (gaps up to {1000 * max_gap:.0f} ms) to accept it.",
            )
        if longest > max_gap * rate:
            raise DataError(
                f"{size}, more than the {1000 * max_gap:.0f} ms that may be interpolated",
                where=where,
                remedy="Leave the recording out, or raise max_gap.",
            )
        notes.append(
            f"{count} missing samples in lead {name} interpolated (longest gap {1000 * longest / rate:.0f} ms)"
        )
    return fill_gaps(signal), notes

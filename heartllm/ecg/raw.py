"""`RawSignal`: what a file holds before it becomes a `Recording`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

LARGEST = 1 << 26  # samples of all signals: three hours of twelve leads at 500 Hz


@dataclass(frozen=True)
class RawSignal:
    """Channels as a file stores them.

    Attributes:
        signal: (C, T) floating, missing samples as NaN, each row in its unit.
        names: C channel names as the file spells them.
        units: C units, None where the file gives none.
        sampling_rate: Hz, None where the file gives none.
        record_id: the recording's id.
        path: the file that was asked for.
        notes: what happened on reading, one sentence each.
    """

    signal: npt.NDArray[np.floating]
    names: tuple[str, ...]
    units: tuple[str | None, ...]
    sampling_rate: float | None
    record_id: str
    path: Path
    notes: tuple[str, ...] = ()

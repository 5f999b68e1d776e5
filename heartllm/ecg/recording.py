"""`Recording`: one 12-lead ECG in memory, in millivolts, with its leads in the canonical order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLING_RATE = 500.0  # Hz; what the codec, and so every ECG token, is defined at


@dataclass(frozen=True)
class Recording:
    """A 12-lead ECG.

    Attributes:
        signal: (12, T) float32 in millivolts, rows in the order of `LEADS`.
        sampling_rate: Hz.
        record_id: the recording's id within its source.
        source: dataset name, or "file".
        path: where it was read from.
        notes: what was done to it on reading, one sentence each ("lead III derived from I and II").
    """

    signal: npt.NDArray[np.float32]
    sampling_rate: float
    record_id: str = ""
    source: str = "file"
    path: Path | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.signal.ndim != 2 or self.signal.shape[0] != len(LEADS):
            raise ValueError(f"a recording's signal has shape (12, T), not {self.signal.shape}")

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.signal.shape[1] / self.sampling_rate

    def lead(self, name: str) -> npt.NDArray[np.float32]:
        """The samples (T,) of the lead called `name`, in millivolts."""
        return self.signal[LEADS.index(name)]

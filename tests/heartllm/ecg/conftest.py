"""A small ECG with known leads, and writers of the files that the tests read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from heartllm.ecg import LEADS
from heartllm.ecg.leads import LIMB_FROM_I_II

Signal = npt.NDArray[np.float64]


def make_beats(seconds: float = 10.0, rate: float = 500.0) -> Signal:
    """(12, T) mV: Gaussian waves at 72 beats a minute; the limb leads obey Einthoven and Goldberger exactly."""
    time = np.arange(round(seconds * rate)) / rate
    waves = {"p": (-0.18, 0.03), "q": (-0.03, 0.008), "r": (0.0, 0.011), "s": (0.03, 0.009), "t": (0.28, 0.05)}
    shapes = {
        name: sum(np.exp(-0.5 * ((time - beat - at) / width) ** 2) for beat in np.arange(0.5, seconds, 60 / 72))
        for name, (at, width) in waves.items()
    }
    sizes = {  # p, q, r, s, t
        "I": (0.08, -0.1, 0.8, -0.05, 0.25),
        "II": (0.14, -0.02, 1.0, -0.3, 0.2),
        "V1": (0.05, 0.0, 0.25, -1.1, -0.1),
        "V2": (0.06, 0.0, 0.5, -1.5, 0.5),
        "V3": (0.06, 0.0, 0.8, -0.9, 0.5),
        "V4": (0.07, -0.05, 1.4, -0.5, 0.45),
        "V5": (0.07, -0.08, 1.3, -0.25, 0.35),
        "V6": (0.07, -0.1, 1.0, -0.1, 0.28),
    }
    rows = {lead: sum(size * shapes[wave] for size, wave in zip(sizes[lead], waves, strict=True)) for lead in sizes}
    limb = LIMB_FROM_I_II @ np.stack([rows["I"], rows["II"]])
    return np.vstack([limb, *(rows[lead] for lead in LEADS[6:])])


@pytest.fixture(scope="session")
def beats() -> Signal:
    signal = make_beats()
    signal.flags.writeable = False
    return signal


@pytest.fixture
def write_wfdb(tmp_path: Path) -> Callable[..., Path]:
    """Writes a record with the `wfdb` package and returns its path without extension."""

    def write(
        signal: Signal,
        *,
        name: str = "rec",
        fmt: str = "16",
        rate: float = 500,
        names: Sequence[str] = LEADS,
        units: str = "mV",
        gain: float = 1000.0,
    ) -> Path:
        import wfdb

        count = len(names)
        wfdb.wrsamp(
            name,
            fs=rate,
            units=[units] * count,
            sig_name=list(names),
            p_signal=np.ascontiguousarray(signal.T),
            fmt=[fmt] * count,
            adc_gain=[gain] * count,
            baseline=[0] * count,
            write_dir=str(tmp_path),
        )
        return tmp_path / name

    return write

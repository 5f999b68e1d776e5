"""Recordings: reading, lead names, resampling, lengths, quality, the ECG-paper plot.

Names are loaded on first use, so that importing this package loads neither scipy, wfdb nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heartllm.ecg.leads import arrange, canonical
    from heartllm.ecg.lengths import LengthPolicy, fit_length, windows
    from heartllm.ecg.plot import plot_ecg, save
    from heartllm.ecg.quality_report import QualityReport, quality
    from heartllm.ecg.raw import RawSignal
    from heartllm.ecg.reading import make_recording, read_raw, read_recording
    from heartllm.ecg.recording import LEADS, SAMPLING_RATE, Recording
    from heartllm.ecg.resampling import resample

_HOMES = {
    "LEADS": "recording",
    "SAMPLING_RATE": "recording",
    "Recording": "recording",
    "RawSignal": "raw",
    "LengthPolicy": "lengths",
    "arrange": "leads",
    "canonical": "leads",
    "fit_length": "lengths",
    "make_recording": "reading",
    "plot_ecg": "plot",
    "save": "plot",
    "QualityReport": "quality_report",
    "quality": "quality_report",
    "read_raw": "reading",
    "read_recording": "reading",
    "resample": "resampling",
    "windows": "lengths",
}
__all__ = [
    "LEADS",
    "LengthPolicy",
    "QualityReport",
    "RawSignal",
    "Recording",
    "SAMPLING_RATE",
    "arrange",
    "canonical",
    "fit_length",
    "make_recording",
    "plot_ecg",
    "quality",
    "read_raw",
    "read_recording",
    "resample",
    "save",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

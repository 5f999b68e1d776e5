"""Voltage units, and everything into millivolts."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from heartllm.errors import DataError

_MILLIVOLTS = {
    "mv": 1.0,
    "millivolt": 1.0,
    "uv": 1e-3,
    "microvolt": 1e-3,
    "v": 1e3,
    "volt": 1e3,
    "nv": 1e-6,
    "nanovolt": 1e-6,
}


def millivolts(unit: str, *, where: str | Path | None = None) -> float:
    """The factor that turns a value in `unit` ("mV", "uV", "µV", "V", "nV") into millivolts.

    Raises:
        DataError: for any other unit.
    """
    key = unicodedata.normalize("NFKC", unit).strip().lower().replace("μ", "u").replace("µ", "u")
    if len(key) > 2 and key.endswith("s"):
        key = key[:-1]
    if key not in _MILLIVOLTS:
        raise DataError(
            f"unknown unit {unit!r}",
            where=where,
            remedy="Units are mV, uV, nV or V; if the file is wrong, pass units='mV'.",
        )
    return _MILLIVOLTS[key]


def is_millivolts(unit: str) -> bool:
    """Whether `unit` needs no conversion."""
    return unit.strip().lower() in ("mv", "millivolt", "millivolts")

"""Arrays as few bytes, the same each time: distinct numbers and codes into them, in an .npz without dates."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm_eval.metrics.base import Array

_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(systems: Sequence[Array]) -> dict[str, npt.NDArray[Any]]:
    """Statistics (samples, k) of each system as the distinct numbers and where they stand, column after column."""
    rows = np.stack(systems).transpose(0, 2, 1)
    values, codes = np.unique(rows, return_inverse=True)
    return {"values": values, "codes": small(codes.reshape(rows.shape))}


def unpack(arrays: Mapping[str, npt.NDArray[Any]], key: str) -> Array:
    """The statistics (systems, samples, k) of a metric."""
    codes = arrays[f"{key}/codes"].transpose(0, 2, 1)
    found: Array = np.ascontiguousarray(arrays[f"{key}/values"][codes], dtype=np.float64)
    return found


def small(numbers: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    top = int(numbers.max(initial=0))
    return np.ascontiguousarray(numbers.astype(np.min_scalar_type(top)))


def archive(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The arrays as .npz, without dates, so that the same numbers are the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o600 << 16
            archive.writestr(info, part.getvalue(), compresslevel=9)
    return stream.getvalue()

"""WFDB records written by hand: one header of text and one interleaved 16-bit file, fast and byte for byte
repeatable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from heartllm.writing import named


def write_record(
    path: Path,
    digital: npt.NDArray[np.int16],
    leads: tuple[str, ...],
    *,
    gain: str,
    first_line_extra: str = "",
    sampling_rate: int = 500,
) -> None:
    """Writes `path`.dat (format 16) and then `path`.hea.

    Args:
        path: without extension; its name is the record's name.
        digital: (leads, T) samples. leads: their names as the header spells them.
        gain: the header's gain field, such as "1000.0(0)/mV".
        first_line_extra: what follows the number of samples on the record line (base time and date).
    """
    name = path.name
    samples = np.ascontiguousarray(digital.T, dtype="<i2")
    signals, header = path.with_name(f"{name}.dat"), path.with_name(f"{name}.hea")
    with named(signals):
        signals.write_bytes(samples.tobytes())
    sums = digital.sum(axis=1, dtype=np.int64) & 0xFFFF  # the header's checksum is the sum modulo 2**16
    lines = [f"{name} {len(leads)} {sampling_rate} {digital.shape[1]}{first_line_extra}"]
    for lead, first, total in zip(leads, digital[:, 0], sums, strict=True):
        lines.append(f"{name}.dat 16 {gain} 16 0 {int(first)} {int(total)} 0 {lead}")
    with named(header):
        header.write_text("\n".join(lines) + "\n", encoding="ascii")

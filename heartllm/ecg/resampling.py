"""Anti-aliased change of the sampling rate, by a polyphase filter (scipy.signal.resample_poly)."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from heartllm.errors import UsageError


def resample(signal: npt.NDArray[np.floating], rate: float, target: float) -> npt.NDArray[np.floating]:
    """Resamples (C, T) from `rate` to `target` Hz; the result is (C, ceil(T * target / rate)) in the same dtype.

    The ratio is taken as the nearest fraction with a denominator of at most 1,000, which is exact for the rates that
    recorders use (100, 240, 250, 257, 360, 400, 500, 977, 1000 Hz). Edges are continued by a line through both ends, so
    that an offset does not ring. Missing samples must be filled before.

    Raises:
        UsageError: for a rate that is not positive.
    """
    if not (rate > 0 and target > 0):
        raise UsageError(f"cannot resample from {rate} to {target} Hz", remedy="Sampling rates are positive.")
    if rate == target:
        return signal
    from scipy.signal import resample_poly

    ratio = Fraction(target / rate).limit_denominator(1000)
    if ratio == 0:
        raise UsageError(f"cannot resample from {rate} to {target} Hz", remedy="Check the sampling rate.")
    # The phases of a polyphase filter differ in gain by 0.1 %, which would turn an offset into a ripple: it stays out.
    offset = signal.mean(axis=1, dtype=np.float64, keepdims=True)
    centred = resample_poly(signal - offset, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    return np.asarray(centred + offset, dtype=signal.dtype)

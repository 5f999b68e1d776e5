"""The parts of a codec report: agreement of what is read off a beat, and codes of disturbed signals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heartllm.codec.codec import Codec
from heartllm.codec.networks import STRIDE
from heartllm.ecg.waves import Floats, Waves

EDGE = 8  # codes at either end that a shifted recording is not compared at: other samples stand beside them
VISIBLE_R, VISIBLE_P = 0.3, 0.05  # mV in the original from which the time of an R wave, and a P wave, are compared
NOISES = {"noise, SNR 20 dB": 20.0, "noise, SNR 10 dB": 10.0}
GAINS = {"gain 0.5": 0.5, "gain 2": 2.0}
SHIFTS = {"shift 2 ms": 1, "shift 8 ms": 4, "shift 16 ms (half a code)": 8, "shift 32 ms (one code)": STRIDE}


@dataclass(frozen=True)
class Agreement:
    """One figure on originals and reconstructions. Errors are reconstruction minus original, in `unit`.

    Attributes:
        count: pairs compared (recordings, or recordings x leads).
        original: mean over the originals.
        bias: mean error. median_error, p90_error: of its absolute value.
        correlation: Pearson's; NaN where one side does not vary.
    """

    unit: str
    count: int
    original: float
    bias: float
    median_error: float
    p90_error: float
    correlation: float


def reconstruct(codec: Codec, signal: Tensor, index: Tensor) -> Tensor:
    """(B, 12, T) mV and its codes (B, N) -> what the codes give back, (B, 12, T) mV.

    A z-scored codec is told the record's mean and deviation, without which its output has no unit.
    """
    with torch.no_grad():
        output = codec.decoder(codec.fsq.values(index))[..., : signal.shape[-1]]
        moments = codec.to_network(signal)[1] if codec.config.scale == "zscore" else None
        return codec.to_millivolt(output, moments)


def equal_shares(codec: Codec, a: Tensor, b: Tensor) -> tuple[float, float]:
    """Share of equal codes and of equal digits between two tensors of codes."""
    digits = codec.fsq.index_to_digits(a) == codec.fsq.index_to_digits(b)
    return float((a == b).float().mean()), float(digits.float().mean())


def disturbed(codec: Codec, signal: Tensor, rng: np.random.Generator) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(name, codes, codes of the disturbed signal) for every disturbance, each pair cut to where both could agree.

    Noise is white and Gaussian, its power set against each lead's own about the mean. A shift of less than a code
    leaves the code numbers as they are; one of a whole code moves them by one.
    """
    index = codec.encode(signal)
    power = signal.var(-1, keepdim=True, correction=0)
    for name, decibel in NOISES.items():
        noise = torch.from_numpy(rng.standard_normal(tuple(signal.shape), dtype=np.float32))
        yield name, index, codec.encode(signal + noise * (power * 10 ** (-decibel / 10)).sqrt())
    for name, gain in GAINS.items():
        yield name, index, codec.encode(signal * gain)
    for name, shift in SHIFTS.items():
        moved = codec.encode(signal[..., shift:])
        last = moved.shape[1] - EDGE
        step = shift // STRIDE
        yield name, index[:, EDGE + step : last + step], moved[:, EDGE:last]


def wave_agreements(pairs: Sequence[tuple[Waves, Waves]]) -> dict[str, Agreement]:
    """Agreement of every figure over (original, reconstruction) pairs; an axis error is the shorter way round."""
    first, second = [a for a, _ in pairs], [b for _, b in pairs]

    def stack(read: Callable[[Waves], Floats | float]) -> tuple[Floats, Floats]:
        return (
            np.array([read(wave) for wave in first], float).reshape(-1),
            np.array([read(wave) for wave in second], float).reshape(-1),
        )

    r, copied_r = stack(lambda wave: wave.r)
    time, copied_time = stack(lambda wave: wave.r_time)
    p, copied_p = stack(lambda wave: wave.p_ii)
    axis, copied_axis = stack(lambda wave: wave.axis)
    tall, there = r >= VISIBLE_R, p >= VISIBLE_P
    return {
        "R amplitude, all leads": _agreement("mV", r, copied_r),
        f"R time, where R is {VISIBLE_R} mV or more": _agreement("ms", time[tall], copied_time[tall]),
        f"P amplitude in II, where it is {VISIBLE_P} mV or more": _agreement("mV", p[there], copied_p[there]),
        "QRS duration": _agreement("ms", *stack(lambda wave: wave.qrs_ms)),
        "QRS peak to peak, all leads": _agreement("mV", *stack(lambda wave: wave.r + wave.s)),
        "ST level in V5, J + 60 ms": _agreement("mV", *stack(lambda wave: wave.st_v5)),
        "frontal axis": _agreement("degrees", axis, axis + shorter_turn(copied_axis - axis)),
        "Sokolow-Lyon": _agreement("mV", *stack(lambda wave: wave.sokolow_lyon)),
    }


def _agreement(unit: str, original: Floats, copy: Floats) -> Agreement:
    if not len(original):
        return Agreement(unit, 0, *[float("nan")] * 5)
    error = copy - original
    size = np.abs(error)
    varies = len(original) > 1 and original.std() > 0 and copy.std() > 0
    return Agreement(
        unit,
        len(original),
        float(original.mean()),
        float(error.mean()),
        float(np.median(size)),
        float(np.percentile(size, 90)),
        float(np.corrcoef(original, copy)[0, 1]) if varies else float("nan"),
    )


def shorter_turn(degrees: Floats | float) -> Floats:
    """The same angle in [-180, 180)."""
    return (np.asarray(degrees, float) + 180) % 360 - 180

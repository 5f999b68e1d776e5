"""Classical floors for a learnt codec: what a linear transform and a uniform quantiser do at the same bit rate.

    signal (12, T) mV -> blocks (n, 12 * block) -> orthonormal transform -> levels round(c / step) -> entropy code

`dct`: the leads are decorrelated (principal components over the 12 leads; a third of them are empty, since four limb
leads follow from two), then DCT-II over each block of time. `pca`: principal components of whole blocks, leads and time
together. Both are fitted on training recordings.

Bits are those of an entropy code, counted and not written: -log2 of the probability of each level under a static model
fitted on training recordings (every coefficient a mixture of two Laplace densities), plus 16 bits for the step. An
arithmetic coder with that model needs at most two bits a recording more (a test runs one). The step is chosen for each
recording so that it just fits its budget: constant bit rate, noisy recordings too. `FixedRate` is the linear twin of a
codec with scalar levels: as many numbers a block, as many levels each, no entropy code at all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import SAMPLING_RATE
from heartllm.errors import DataError, UsageError

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.int64]
STEP_BITS = 16  # to tell a recording's step
ROUNDING = 1 / 3  # a level is reached from 2/3 of a step on: the dead zone that suits sparse coefficients at low rates
MOST_BLOCKS = 4000  # that the densities are fitted on
LEAST, MOST = 1e-4, 1e2  # mV: smallest and largest step


def blocks_of(signal: npt.NDArray[np.floating], block: int) -> Floats:
    """(12, T) -> (n, 12 * block), lead after lead; the last sample is repeated to fill the last block."""
    padded = np.pad(signal, ((0, 0), (0, -signal.shape[1] % block)), mode="edge").astype(np.float64)
    return padded.reshape(len(signal), -1, block).transpose(1, 0, 2).reshape(-1, len(signal) * block)


def signal_of(blocks: Floats, block: int, samples: int) -> Floats:
    """The inverse of `blocks_of`: (n, 12 * block) -> (12, samples)."""
    cut = blocks.reshape(len(blocks), -1, block).transpose(1, 0, 2)
    return cut.reshape(cut.shape[0], -1)[:, :samples]


def _principal(rows: Floats) -> Floats:
    """Orthonormal principal axes of (n, D), strongest first, as rows (D, D)."""
    _, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    return np.ascontiguousarray(axes.T[::-1])


@dataclass(frozen=True)
class Compressed:
    """A compressed recording: `levels` (n, D) int64, the `step` in mV, `bits` in all, `samples` of the original."""

    levels: Levels
    step: float
    bits: float
    samples: int


@dataclass(frozen=True)
class TransformCoder:
    """A fitted transform and the densities of its coefficients.

    Attributes:
        axes: (D, D) orthonormal rows, D = 12 * block. mean: (D,) of the blocks.
        share: (D,) weight of the first Laplace density. scales: (2, D) mean absolute value of either, in mV.
    """

    kind: Literal["dct", "pca"]
    block: int
    axes: Floats
    mean: Floats
    share: Floats
    scales: Floats

    def compress(self, signal: npt.NDArray[np.floating], bits: float) -> Compressed:
        """(12, T) mV in at most `bits` bits, with the smallest step that fits.

        Raises:
            UsageError: if not even a recording of zeros fits.
        """
        coefficients = (blocks_of(signal, self.block) - self.mean) @ self.axes.T
        low, high = math.log(LEAST), math.log(MOST)
        if self.bits(self._levels(coefficients, MOST), MOST) > bits:
            raise UsageError(f"{bits:g} bits are too few for this recording", remedy="Allow more bits.")
        for _ in range(15):
            middle = (low + high) / 2
            fits = self.bits(self._levels(coefficients, math.exp(middle)), math.exp(middle)) <= bits
            low, high = (low, middle) if fits else (middle, high)
        step = math.exp(high)
        levels = self._levels(coefficients, step)
        return Compressed(levels, step, self.bits(levels, step), signal.shape[1])

    def expand(self, compressed: Compressed) -> Floats:
        """-> (12, T) mV."""
        blocks = (compressed.levels * compressed.step) @ self.axes + self.mean
        return signal_of(blocks, self.block, compressed.samples)

    def bits(self, levels: Levels, step: float) -> float:
        """Length of the entropy code of levels (n, D), with the step."""
        row, column = np.nonzero(levels)
        zeros = len(levels) - np.bincount(column, minlength=levels.shape[1])
        empty = zeros @ np.log2(self.probability(np.zeros(levels.shape[1], np.int64), np.arange(levels.shape[1]), step))
        full = np.log2(self.probability(levels[row, column], column, step)).sum()
        return STEP_BITS - float(empty + full)

    def probability(self, levels: Levels, column: Levels, step: float) -> Floats:
        """(k,) probability, under the model, of each of (k,) levels of the coefficients `column` (k,)."""
        edge = (1 - ROUNDING) * step
        size = np.abs(levels)
        total = np.zeros(levels.shape)
        for weight, scales in ((self.share, self.scales[0]), (1 - self.share, self.scales[1])):
            scale = scales[column]
            far = 0.5 * np.exp(-(edge + np.maximum(size - 1, 0) * step) / scale) * -np.expm1(-step / scale)
            total += weight[column] * np.where(size == 0, -np.expm1(-edge / scale), far)
        return np.maximum(total, 1e-300)

    @staticmethod
    def _levels(coefficients: Floats, step: float) -> Levels:
        return (np.sign(coefficients) * np.floor(np.abs(coefficients) / step + ROUNDING)).astype(np.int64)


def fit_transform(
    kind: Literal["dct", "pca"], signals: Sequence[npt.NDArray[np.floating]], block: int = 100
) -> TransformCoder:
    """Fits a coder on training recordings (12, T) mV.

    Args:
        block: samples. Long blocks find more to save; principal components of long blocks need many recordings.

    Raises:
        DataError: for no recordings, or fewer blocks than a principal axis needs.
    """
    if not signals:
        raise DataError("there are no recordings to fit a transform on", remedy="Name a split that has some.")
    rows = np.concatenate([blocks_of(signal, block) for signal in signals])
    width = rows.shape[1]
    if kind == "dct":
        from scipy.fft import dct

        cosines: Floats = np.asarray(dct(np.eye(block), axis=0, norm="ortho"), np.float64)
        leads = _principal(np.concatenate([signal.T for signal in signals]).astype(np.float64))
        axes: Floats = np.asarray(np.kron(leads, cosines), np.float64)
        mean: Floats = np.zeros(width)
    else:
        if len(rows) < 2 * width:
            raise DataError(
                f"{len(rows)} blocks are too few for {width} principal axes", remedy="Shorten the block or add data."
            )
        mean = rows.mean(0)
        axes = _principal(rows - mean)
    some = rows[:: max(1, len(rows) // MOST_BLOCKS)]
    share, scales = _laplace_mixture((some - mean) @ axes.T)
    return TransformCoder(kind, block, axes, mean, share, scales)


def _laplace_mixture(coefficients: Floats, rounds: int = 10) -> tuple[Floats, Floats]:
    """Two Laplace densities a column of (n, D), by expectation-maximisation from half and twice the mean size."""
    size = np.abs(coefficients) + 1e-5
    mean = size.mean(0)
    share, scales = np.full(len(mean), 0.5), np.stack([mean / 2, mean * 2])
    for _ in range(rounds):
        first, second = (
            weight * np.exp(-size / scale) / scale for weight, scale in ((share, scales[0]), (1 - share, scales[1]))
        )
        belongs = first / np.maximum(first + second, 1e-300)
        share = belongs.mean(0).clip(0.01, 0.99)
        scales = np.stack(
            [
                (belongs * size).sum(0) / np.maximum(belongs.sum(0), 1e-9),
                ((1 - belongs) * size).sum(0) / np.maximum((1 - belongs).sum(0), 1e-9),
            ]
        ).clip(1e-5)
    return share, scales


@dataclass(frozen=True)
class FixedRate:
    """The linear twin of a codec with levels (L_1, ..., L_d): the first d principal components of each block, each at
    L_i even steps across +-`limits[i]`.

    Attributes:
        axes: (d, 12 * block) orthonormal rows. mean: (12 * block,). limits: (d,) mV.
    """

    levels: tuple[int, ...]
    block: int
    axes: Floats
    mean: Floats
    limits: Floats

    @property
    def bits_per_second(self) -> float:
        """A code of log2(prod L) bits a block."""
        return math.log2(math.prod(self.levels)) * SAMPLING_RATE / self.block

    def digits(self, signal: npt.NDArray[np.floating]) -> Levels:
        """(12, T) mV -> (n, d) digits, each in [0, L_i)."""
        top = np.array(self.levels) - 1
        values = (blocks_of(signal, self.block) - self.mean) @ self.axes.T
        return np.clip(np.rint((values / self.limits + 1) / 2 * top), 0, top).astype(np.int64)

    def expand(self, digits: Levels, samples: int) -> Floats:
        """(n, d) digits -> (12, samples) mV."""
        values = (2 * digits / (np.array(self.levels) - 1) - 1) * self.limits
        return signal_of(values @ self.axes + self.mean, self.block, samples)


def fit_fixed_rate(levels: tuple[int, ...], signals: Sequence[npt.NDArray[np.floating]], block: int = 16) -> FixedRate:
    """Fits the linear twin; each limit is the one of 60 with the smallest squared error on the training recordings."""
    if not signals:
        raise DataError("there are no recordings to fit a transform on", remedy="Name a split that has some.")
    rows = np.concatenate([blocks_of(signal, block) for signal in signals])
    mean = rows.mean(0)
    axes = _principal(rows - mean)[: len(levels)]
    values = (rows - mean) @ axes.T
    limits = []
    for column, count in zip(values.T, levels, strict=True):
        tried = np.geomspace(0.2, 10, 60) * max(float(column.std()), 1e-6)
        errors = []
        for limit in tried:
            digit = np.clip(np.rint((column / limit + 1) / 2 * (count - 1)), 0, count - 1)
            errors.append(float(np.mean(((2 * digit / (count - 1) - 1) * limit - column) ** 2)))
        limits.append(tried[int(np.argmin(errors))])
    return FixedRate(levels, block, axes, mean, np.array(limits))


def low_pass(signal: npt.NDArray[np.floating], cutoff: float, rate: float = SAMPLING_RATE) -> Floats:
    """(12, T) through a Butterworth low pass of order 4, forward and backward (no delay): the floor for denoising.

    Raises:
        UsageError: for a cutoff outside (0, rate / 2) Hz.
    """
    if not 0 < cutoff < rate / 2:
        raise UsageError(
            f"a cutoff of {cutoff:g} Hz does not exist at {rate:g} Hz", remedy="Choose 0 to half the rate."
        )
    from scipy.signal import butter, sosfiltfilt

    filtered: Floats = sosfiltfilt(butter(4, cutoff, fs=rate, output="sos"), signal.astype(np.float64), axis=1)
    return filtered


__all__ = [
    "Compressed",
    "FixedRate",
    "TransformCoder",
    "blocks_of",
    "fit_fixed_rate",
    "fit_transform",
    "low_pass",
    "signal_of",
]

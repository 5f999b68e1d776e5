"""Ways to copy an ECG through a few bits: the learnt codec, and the floors it is compared with.

A copier takes (12, T) mV at 500 Hz and gives the copy and the bits it took (None for a filter, which sends no bits).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from heartllm.ecg.recording import SAMPLING_RATE

if TYPE_CHECKING:
    from heartllm.codec.codec import Codec
    from heartllm.frontends.ecg_byte import ECGByte

Floats = npt.NDArray[np.float64]
Copy = Callable[[Floats], tuple[Floats, float | None]]
RATES = (80.0, 160.0, 640.0, 1280.0, 2560.0)  # bits a second of the floors, beside the codec's own
BYTES = ((25.0, 13), (25.0, 26), (50.0, 13), (50.0, 26), (100.0, 26))  # Hz and letters of ECG-Byte's points
MERGES, BYTE_RECORDINGS = 1000, 80
DCT_BLOCK, PCA_BLOCK = 100, 50  # samples: the best of 50 to 500, and of 16 to 100, on PTB-XL's validation split
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True)
class Copier:
    """One way to copy: `system` as figures name it, `setting` what else is to be told ("640 bit/s")."""

    system: str
    setting: str
    copy: Copy


def codec_rate(codec: Codec) -> float:
    """Bits a second of a codec at a fixed length a code."""
    from math import log2

    from heartllm.codec.networks import STRIDE

    return log2(codec.codes) * SAMPLING_RATE / STRIDE


def codec_copier(codec: Codec) -> Copier:
    """The codec; a z-scored one is told each record's mean and deviation."""
    import torch

    from heartllm.codec.measures import reconstruct

    each = codec_rate(codec) / SAMPLING_RATE

    def copy(signal: Floats) -> tuple[Floats, float]:
        x = torch.from_numpy(signal.astype(np.float32))[None]
        return reconstruct(codec, x, codec.encode(x))[0].double().numpy(), each * signal.shape[1]

    return Copier("codec", f"{codec.codes:,} codes", copy)


def floors(codec: Codec, train: Sequence[Floats], rates: Sequence[float]) -> list[Copier]:
    """DCT, PCA at the given bits a second, and the linear twin of the codec, fitted on training recordings."""
    from heartllm.codec.floors import FixedRate, TransformCoder, fit_fixed_rate, fit_transform
    from heartllm.codec.networks import STRIDE

    def coded(coder: TransformCoder, rate: float) -> Copy:
        def copy(signal: Floats) -> tuple[Floats, float]:
            compressed = coder.compress(signal, rate * signal.shape[1] / SAMPLING_RATE)
            return coder.expand(compressed), compressed.bits

        return copy

    def digits(twin: FixedRate) -> Copy:
        def copy(signal: Floats) -> tuple[Floats, float]:
            bits = twin.bits_per_second * signal.shape[1] / SAMPLING_RATE
            return twin.expand(twin.digits(signal), signal.shape[1]), bits

        return copy

    made = []
    for name, coder in (
        ("DCT", fit_transform("dct", train, DCT_BLOCK)),
        ("PCA", fit_transform("pca", train, PCA_BLOCK)),
    ):
        made += [Copier(name, f"{rate:.0f} bit/s", coded(coder, rate)) for rate in rates]
    twin = fit_fixed_rate(codec.config.levels, train, STRIDE)
    return [*made, Copier("linear twin", "x".join(map(str, codec.config.levels)), digits(twin))]


def low_pass_copier(cutoff: float) -> Copier:
    """A Butterworth low pass of order 4, forward and backward."""
    from heartllm.codec.floors import low_pass

    return Copier("low pass", f"{cutoff:g} Hz", lambda signal: (low_pass(signal, cutoff), None))


def byte_copiers(train: Sequence[Floats]) -> list[Copier]:
    """ECG-Byte of eight leads for all of their 10 s, without a budget of positions, at several rates and alphabets."""
    import torch

    from heartllm.frontends.ecg_byte import ECGByte, ECGByteConfig
    from heartllm.training.ecg_byte import learn_merges

    limits = np.percentile(np.stack([signal[:, ::10] for signal in train]), [1, 99])
    some = train[:: max(1, len(train) // BYTE_RECORDINGS)]

    def written(tokenizer: ECGByte) -> Copy:
        each = np.log2(tokenizer.config.letters + tokenizer.config.merges)

        def copy(signal: Floats) -> tuple[Floats, float]:
            tokens = tokenizer.tokens(tokenizer.letters(signal.astype(np.float32)))
            decoded = tokenizer.decode(torch.tensor([tokens]), signal.shape[1])[0].double().numpy()
            return decoded, float(each * len(tokens))

        return copy

    made = []
    for rate, letters in BYTES:
        config = ECGByteConfig(
            letters=letters, merges=MERGES, rate=rate, leads=EIGHT, seconds=10.0, strip="", positions=100_000
        )
        tokenizer = ECGByte(config)
        tokenizer.limits.copy_(torch.from_numpy(limits))
        strings = (bytes(tokenizer.letters(signal.astype(np.float32)) + ord("a")).decode() for signal in some)
        pairs = learn_merges(strings, letters, MERGES)
        tokenizer.merges[: len(pairs)] = torch.from_numpy(pairs)
        made.append(Copier("ECG-Byte", f"{rate:g} Hz, {letters} letters", written(tokenizer)))
    return made


def errors(signal: Floats, copy: Floats) -> tuple[float, float]:
    """Root mean square error in mV over all leads, and Pearson's r, the mean over leads that are not flat."""
    a, b = (x - x.mean(1, keepdims=True) for x in (signal, copy))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    alive = np.linalg.norm(a, axis=1) > 1e-6
    r = np.where(norms > 1e-9, (a * b).sum(1) / np.maximum(norms, 1e-12), 0.0)
    return float(np.sqrt(np.mean((copy - signal) ** 2))), float(r[alive].mean()) if alive.any() else float("nan")


def snr(clean: Floats, copy: Floats) -> float:
    """10 log10 of the power of `clean` over that of what the copy adds to it, over all leads, without means."""
    added = (copy - clean).var(axis=1).sum()
    return float(10 * np.log10(clean.var(axis=1).sum() / max(float(added), 1e-12)))


__all__ = [
    "Copier",
    "Floats",
    "RATES",
    "byte_copiers",
    "codec_copier",
    "codec_rate",
    "errors",
    "floors",
    "low_pass_copier",
    "snr",
]

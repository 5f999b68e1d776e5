"""Stage 1: train the codec to reconstruct ECGs from their codes.

Waveforms are read once into a memory-mapped file of int16 microvolts; batches are random crops of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.config import dumps
from heartllm.ecg.recording import Recording
from heartllm.training.loop import LoopConfig, fit

MICROVOLT = 1000.0  # int16 steps in a millivolt
Waveforms = npt.NDArray[np.int16]  # (R, 12, T) microvolts, usually memory-mapped


@dataclass(frozen=True)
class TokenizerRecipe:
    """Settings of the stage. `crop` is in samples (1,280 = 2.56 s, 80 codes); `batch` in crops."""

    codec: CodecConfig = field(default_factory=CodecConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=2500, learning_rate=2e-3, warmup=100, evaluate_every=250)
    )
    batch: int = 24
    crop: int = 1280


def cache_waveforms(recordings: Iterable[Recording], count: int, path: Path, samples: int = 5000) -> Waveforms:
    """Writes at most `count` recordings as (R, 12, samples) int16 microvolts and returns the memory map, read-only."""
    store = np.lib.format.open_memmap(path, mode="w+", dtype=np.int16, shape=(count, 12, samples))
    rows = 0
    for recording in recordings:
        store[rows] = np.clip(recording.signal * MICROVOLT, -32768, 32767).round()
        rows += 1
    store.flush()
    return np.load(path, mmap_mode="r")[:rows]


def millivolts(
    waveforms: Waveforms, rows: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], samples: int
) -> Tensor:
    """Crops (B, 12, samples) float32 mV of the given rows at the given first samples."""
    crops = np.stack([waveforms[row, :, start : start + samples] for row, start in zip(rows, starts, strict=True)])
    return torch.from_numpy(crops.astype(np.float32) / MICROVOLT)


def lead_deviations(waveforms: Waveforms, limit: int = 400) -> Tensor:
    """(12,) standard deviation of each lead in mV over an even sample of the recordings, each about its own mean."""
    rows = np.linspace(0, len(waveforms) - 1, min(limit, len(waveforms))).astype(int)
    deviations = np.stack([waveforms[row].astype(np.float32).std(-1) for row in rows]) / MICROVOLT
    return torch.from_numpy(np.sqrt((deviations**2).mean(0)).astype(np.float32))


def train_codec(
    recipe: TokenizerRecipe, train: Waveforms, valid: Waveforms, folder: Path
) -> tuple[Codec, list[Mapping[str, float]]]:
    """Trains a codec; the monitored figure is the validation error in the network's own scale.

    Returns:
        The codec in evaluation mode, and the log.
    """
    torch.manual_seed(recipe.loop.seed)
    codec = Codec(recipe.codec)
    codec.lead_scale.copy_(lead_deviations(train))

    def loss(step: int) -> Mapping[str, Tensor]:
        draw = np.random.default_rng((recipe.loop.seed, step))
        rows = draw.integers(len(train), size=recipe.batch)
        starts = draw.integers(train.shape[2] - recipe.crop + 1, size=recipe.batch)
        x, _ = codec.to_network(millivolts(train, rows, starts, recipe.crop))
        reconstruction, _ = codec(x)
        return {"loss": torch.mean((reconstruction - x) ** 2)}

    def evaluate() -> Mapping[str, float]:
        return reconstruction_figures(codec, valid[: min(160, len(valid))])

    digest = hashlib.sha256(f"{dumps(recipe)}{train.shape}{int(train[:, :, ::500].astype(np.int64).sum())}".encode())
    log: list[Mapping[str, float]] = list(
        fit(
            codec,
            loss=loss,
            config=recipe.loop,
            folder=folder,
            evaluate=evaluate,
            fingerprint=digest.hexdigest(),
            title="codec",
        )
    )
    return codec, log


@torch.no_grad()
def reconstruction_figures(codec: Codec, waveforms: Waveforms, batch: int = 8) -> dict[str, float]:
    """Error in the network's scale ("loss"), median RMSE in mV, mean correlation a lead, codes used and perplexity."""
    squared, rmse, correlation = [], [], []
    counts = torch.zeros(codec.codes, dtype=torch.int64)
    for first in range(0, len(waveforms), batch):
        rows = np.arange(first, min(first + batch, len(waveforms)))
        signal = millivolts(waveforms, rows, np.zeros_like(rows), waveforms.shape[2])
        x, moments = codec.to_network(signal)
        output, index = codec(x)
        counts += torch.bincount(index.flatten(), minlength=codec.codes)
        squared.append(((output - x) ** 2).mean((1, 2)))
        decoded = codec.to_millivolt(output, moments)
        rmse.append(((decoded - signal) ** 2).mean(-1).sqrt())
        a, b = decoded - decoded.mean(-1, keepdim=True), signal - signal.mean(-1, keepdim=True)
        correlation.append((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp_min(1e-6))
    share = counts[counts > 0] / counts.sum()
    return {
        "loss": float(torch.cat(squared).mean()),
        "rmse_mv": float(torch.cat(rmse).median()),
        "correlation": float(torch.cat(correlation).mean()),
        "codes_used": float((counts > 0).sum()),
        "perplexity": float(torch.exp(-(share * share.log()).sum())),
    }

"""Stage 1: train the codec to reconstruct ECGs from their codes, or without any (the front-end `continuous`).

Waveforms are read once into a memory-mapped file of int16 microvolts; batches are random crops of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.config import dumps
from heartllm.ecg.recording import Recording
from heartllm.errors import DataError
from heartllm.frontends.continuous import Continuous, ContinuousConfig
from heartllm.frontends.fsq import FSQCodes
from heartllm.training.loop import LoopConfig, fit, settings_of
from heartllm.training.processes import Part
from heartllm.writing import reserve_array

MICROVOLT = 1000.0  # int16 steps in a millivolt
Waveforms = npt.NDArray[np.int16]  # (R, 12, T) microvolts, usually memory-mapped
Reconstruct = Callable[[Tensor], tuple[Tensor, Tensor | None]]  # network input -> the same again, and codes if any


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
    store = reserve_array(path, np.int16, (count, 12, samples))
    rows = 0
    for recording in recordings:
        store[rows] = np.clip(recording.signal * MICROVOLT, -32768, 32767).round()
        rows += 1
    store.flush()
    return open_waveforms(path)[:rows]


def open_waveforms(path: Path) -> Waveforms:
    """The memory map of what `cache_waveforms` has written, here or in process 0.

    Raises:
        DataError: if it cannot be seen from here.
    """
    try:
        waveforms: Waveforms = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        remedy = "Give an --out that all machines see."
        raise DataError("this process does not see what process 0 has written", where=path, remedy=remedy) from None
    return waveforms


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


def train_fsq(
    config: CodecConfig,
    loop: LoopConfig,
    train: Waveforms,
    valid: Waveforms,
    folder: Path,
    *,
    reports: Sequence[str | None] | None = None,
    text: object | None = None,
    batch: int = 24,
    crop: int = 1280,
) -> tuple[FSQCodes, list[dict[str, Any]]]:
    """Trains the codec; the monitored figure is the validation error in the network's own scale.

    Returns:
        The codec in evaluation mode, and the log.
    """
    torch.manual_seed(loop.seed)
    codec = FSQCodes(config)
    mark = settings_of(TokenizerRecipe(config, loop, batch, crop))
    return codec, _train(codec, codec, codec, loop, train, valid, folder, batch, crop, mark)


def train_continuous(
    config: ContinuousConfig,
    loop: LoopConfig,
    train: Waveforms,
    valid: Waveforms,
    folder: Path,
    *,
    reports: Sequence[str | None] | None = None,
    text: object | None = None,
    batch: int = 24,
    crop: int = 1280,
) -> tuple[Continuous, list[dict[str, Any]]]:
    """Trains the codec's networks as an autoencoder without a quantiser, in the same way as the codec."""
    torch.manual_seed(loop.seed)
    front = Continuous(config)
    mark = dumps(config) + settings_of(TokenizerRecipe(config.codec, loop, batch, crop))
    log = _train(front, front.codec, front, loop, train, valid, folder, batch, crop, mark)
    rows = np.linspace(0, len(train) - 1, min(256, len(train))).astype(np.int64)
    parts = np.array_split(rows, -(-len(rows) // 16))
    front.standardise(millivolts(train, part, np.zeros_like(part), train.shape[2]) for part in parts)
    return front, log


def _train(
    model: nn.Module,
    codec: Codec,
    reconstruct: Reconstruct,
    loop: LoopConfig,
    train: Waveforms,
    valid: Waveforms,
    folder: Path,
    batch: int,
    crop: int,
    mark: str,
) -> list[dict[str, Any]]:
    """Trains `model` to reconstruct random crops in the scale of `codec`."""
    codec.lead_scale.copy_(lead_deviations(train))

    def loss(trained: nn.Module, step: int, part: Part) -> Mapping[str, Tensor]:
        draw = np.random.default_rng((loop.seed, step))
        rows = draw.integers(len(train), size=batch)
        starts = draw.integers(train.shape[2] - crop + 1, size=batch)
        own = part.of(batch)
        x, _ = codec.to_network(millivolts(train, rows[own], starts[own], crop).to(codec.lead_scale.device))
        reconstruction, _ = trained(x)
        found = torch.mean((reconstruction - x) ** 2)
        return {"loss": found if part.count == 1 else found * (len(x) / batch)}

    def evaluate() -> Mapping[str, float]:
        return reconstruction_figures(codec, valid[: min(160, len(valid))], reconstruct=reconstruct)

    digest = hashlib.sha256(f"{mark}{train.shape}{int(train[:, :, ::500].astype(np.int64).sum())}".encode())
    return fit(
        model,
        loss=loss,
        config=loop,
        folder=folder,
        batch=batch,
        evaluate=evaluate,
        fingerprint=digest.hexdigest(),
        title="codec",
    )


@torch.no_grad()
def reconstruction_figures(
    codec: Codec, waveforms: Waveforms, batch: int = 8, *, reconstruct: Reconstruct | None = None
) -> dict[str, float]:
    """Error in the network's scale ("loss"), median RMSE in mV, mean correlation a lead, codes used and perplexity.

    Args:
        reconstruct: what to measure in the scale of `codec`; the codec itself where None.
    """
    squared, rmse, correlation = [], [], []
    counts = torch.zeros(codec.codes, dtype=torch.int64)
    for first in range(0, len(waveforms), batch):
        rows = np.arange(first, min(first + batch, len(waveforms)))
        signal = millivolts(waveforms, rows, np.zeros_like(rows), waveforms.shape[2]).to(codec.lead_scale.device)
        x, moments = codec.to_network(signal)
        output, index = (reconstruct or codec)(x)
        if index is not None:
            counts += torch.bincount(index.flatten(), minlength=codec.codes).cpu()
        squared.append(((output - x) ** 2).mean((1, 2)))
        decoded = codec.to_millivolt(output, moments)
        rmse.append(((decoded - signal) ** 2).mean(-1).sqrt())
        a, b = decoded - decoded.mean(-1, keepdim=True), signal - signal.mean(-1, keepdim=True)
        correlation.append((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)).clamp_min(1e-6))
    figures = {
        "loss": float(torch.cat(squared).mean()),
        "rmse_mv": float(torch.cat(rmse).median()),
        "correlation": float(torch.cat(correlation).mean()),
    }
    if counts.any():
        share = counts[counts > 0] / counts.sum()
        figures |= {
            "codes_used": float((counts > 0).sum()),
            "perplexity": float(torch.exp(-(share * share.log()).sum())),
        }
    return figures

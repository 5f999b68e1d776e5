"""Probes: how much of the findings a small network can read from waveforms, and from codes.

The same convolutional trunk stands on a strided stem (waveform) or on one-hot FSQ digits (codes), with the same
training. Their macro AUC bounds what a language model that reads the same codes could reach: the reading gap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.codec.fsq import FSQ
from heartllm.codec.networks import LEAD_COUNT, STRIDE
from heartllm.training.loop import LoopConfig, rate_at

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ProbeSettings:
    """Training of a probe. The epoch with the best validation AUC is kept."""

    steps: int = 3000
    batch: int = 16
    learning_rate: float = 2e-3
    width: int = 96
    dropout: float = 0.3
    evaluate_every: int = 250
    seed: int = 0


class Probe(nn.Module):
    """What `stem` takes -> (B, F) logits: three convolutions, two poolings, mean and maximum over time."""

    def __init__(self, stem: nn.Module, findings: int, width: int, dropout: float) -> None:
        super().__init__()
        self.stem = stem
        self.trunk = nn.Sequential(
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
            nn.MaxPool1d(2),
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
            nn.MaxPool1d(2),
            nn.Conv1d(width, width, 5, padding=2),
            nn.GELU(),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, findings))

    def forward(self, x: Tensor) -> Tensor:
        h = self.trunk(self.stem(x))
        return self.head(torch.cat([h.mean(-1), h.amax(-1)], -1))


class WaveformStem(nn.Module):
    """(B, 12, T) mV -> (B, width, N): the twelve leads together, strided to code rate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(LEAD_COUNT, width // 2, 9, stride=4, padding=4),
            nn.GELU(),
            nn.Conv1d(width // 2, width, 9, stride=STRIDE // 4, padding=4),
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(torch.asinh(x / 0.2))


class DigitStem(nn.Module):
    """(B, N) codes -> (B, width, N): one-hot digits through one matrix."""

    def __init__(self, levels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.fsq, self.levels = FSQ(levels), levels
        self.linear = nn.Linear(sum(levels), width)

    def forward(self, codes: Tensor) -> Tensor:
        digits = self.fsq.index_to_digits(codes)
        hot = torch.cat([F.one_hot(digits[..., i], level) for i, level in enumerate(self.levels)], -1)
        return self.linear(hot.float()).transpose(1, 2)


class ValueStem(nn.Module):
    """(B, N, width) values of a continuous front-end -> (B, trunk, N): one matrix."""

    def __init__(self, values: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(values, width)

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values).transpose(1, 2)


def auc(scores: Floats, truth: Bools) -> float:
    """Area under the ROC curve: the Mann-Whitney statistic with ties counted half. NaN where a class is empty."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if not positive or not negative:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def macro_auc(scores: Floats, truth: Bools) -> float:
    """Mean AUC over the columns of (R, F) that have both classes."""
    return float(np.nanmean([auc(scores[:, i], truth[:, i]) for i in range(truth.shape[1])]))


def train_probe(
    stem: nn.Module,
    batch: Callable[[npt.NDArray[np.int64], np.random.Generator], Tensor],
    truth: Bools,
    valid: Tensor,
    valid_truth: Bools,
    settings: ProbeSettings,
    progress: Callable[[int], object] = lambda step: None,
) -> Probe:
    """Trains a probe on `batch(rows, rng)` and keeps the weights with the best macro AUC on `valid`.

    Args:
        truth: (R, F) findings of the training rows.
    """
    torch.manual_seed(settings.seed)
    probe = Probe(stem, truth.shape[1], settings.width, settings.dropout)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=settings.learning_rate, weight_decay=0.05)
    schedule = LoopConfig(steps=settings.steps, learning_rate=settings.learning_rate, warmup=50)
    best, kept = -1.0, probe.state_dict()
    for step in range(settings.steps):
        rng = np.random.default_rng((settings.seed, step))
        rows = rng.choice(len(truth), settings.batch)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, schedule)
        logits = probe.train()(batch(rows, rng))
        loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth[rows]).float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps:
            value = macro_auc(predict(probe, valid), valid_truth)
            if value > best:
                best, kept = value, {name: tensor.clone() for name, tensor in probe.state_dict().items()}
        progress(step + 1)
    probe.load_state_dict(kept)
    return probe.eval()


@torch.no_grad()
def predict(probe: Probe, inputs: Tensor, batch: int = 32) -> Floats:
    """(R, F) logits."""
    return torch.cat([probe.eval()(part) for part in inputs.split(batch)]).double().numpy()


def bootstrap_difference(
    first: Floats, second: Floats, truth: Bools, clusters: Sequence[str], resamples: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of macro AUC(first) - macro AUC(second), resampling clusters (patients)."""
    rng = np.random.default_rng(seed)
    names, member = np.unique(np.asarray(clusters), return_inverse=True)
    rows_of = [np.flatnonzero(member == i) for i in range(len(names))]
    values = []
    for _ in range(resamples):
        rows = np.concatenate([rows_of[i] for i in rng.integers(len(names), size=len(names))])
        values.append(macro_auc(first[rows], truth[rows]) - macro_auc(second[rows], truth[rows]))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)

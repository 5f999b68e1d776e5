"""Stage 1 of the CLIP-style front-end: ECGs and reports that belong together are drawn together, others apart.

MERL (Liu et al., ICML 2024), its cross-modal alignment: symmetric InfoNCE at temperature 0.07 between the pooled ECG
and the projected features of a frozen text encoder; with `uni_modal` its second term, the same loss between two
dropout views of the mean-pooled feature map.

Departures: identical reports of a batch do not count as each other's negatives (templated reports repeat often, and a
text cannot be told from itself); the loss is the mean of both directions, not their sum; batches are small. Recordings
without a report are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.config import dumps
from heartllm.errors import DataError, UsageError
from heartllm.frontends.clip import Clip, ClipConfig
from heartllm.training.loop import LoopConfig, fit, settings_of
from heartllm.training.processes import Part
from heartllm.training.tokenizer import Waveforms, lead_deviations, millivolts

if TYPE_CHECKING:
    from heartllm.language.text_side import TextSide

Reports = Sequence[str | None]
VALID_MOST = 256  # recordings that a validation looks at


def info_nce(first: Tensor, second: Tensor, temperature: float, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE of (B, D) and (B, D), rows of norm 1: mean of both directions' cross entropies.

    `same` (B,) numbers the rows' texts: pairs of equal number are neither positives (but for i with i) nor negatives.
    """
    logits = first @ second.T / temperature
    if same is not None:
        equal = (same[:, None] == same) & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        logits = logits.masked_fill(equal, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def recall_at(
    queries: Tensor, candidates: Tensor, wanted: Tensor, most: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Share of queries (n, D) whose candidate (m, D) of number `wanted` (n,) is among the k nearest by cosine.

    Candidates are distinct, so that chance is k / m.
    """
    similarity = F.normalize(queries, dim=-1) @ F.normalize(candidates, dim=-1).T
    nearer = (similarity > similarity.gather(1, wanted[:, None])).sum(1)
    return {f"recall@{k}": float((nearer < k).double().mean()) for k in most}


class Pairs:
    """Recordings that have a report, and the frozen text features of their distinct reports.

    Attributes:
        rows: (R,) their numbers in the waveforms.
        texts: (R,) the number of each one's report in `features` (m, text_width).
    """

    def __init__(self, waveforms: Waveforms, reports: Reports, text: TextSide) -> None:
        if len(reports) != len(waveforms):
            raise DataError(
                f"{len(reports)} reports for {len(waveforms)} recordings", remedy="Give one each, None where missing."
            )
        kept = [(row, report.strip()) for row, report in enumerate(reports) if report and report.strip()]
        distinct = list(dict.fromkeys(report for _, report in kept))
        number = {report: i for i, report in enumerate(distinct)}
        self.waveforms = waveforms
        self.rows = np.array([row for row, _ in kept], np.int64)
        self.texts = torch.tensor([number[report] for _, report in kept], dtype=torch.int64)
        self.distinct = distinct
        self.features = text.embed(distinct).detach().float().cpu() if distinct else torch.zeros(0, 0)

    def signal(self, picks: npt.NDArray[np.int64]) -> Tensor:
        """(B, 12, T) mV of the given ones."""
        rows = self.rows[picks]
        return millivolts(self.waveforms, rows, np.zeros_like(rows), self.waveforms.shape[2])


class Alignment(nn.Module):
    """What trains: the ECG encoder, the text head, and two linear layers of the uni-modal term if it has a weight."""

    def __init__(self, front_end: Clip) -> None:
        super().__init__()
        self.front_end = front_end
        config = front_end.config
        self.views = nn.ModuleList(
            nn.Sequential(nn.Linear(config.embedding, config.embedding, bias=False), nn.Dropout(config.dropout))
            for _ in range(2 if config.uni_modal else 0)
        )

    def forward(self, signal: Tensor, features: Tensor, same: Tensor) -> dict[str, Tensor]:
        """(B, 12, T) mV, text features (B, text_width) and the numbers of the texts (B,) -> named losses."""
        front, config, device = self.front_end, self.front_end.config, self.front_end.centre.device
        features, same = features.to(device), same.to(device)
        found = front.feature_map(signal.to(device))
        aligned = info_nce(front.project(found), front.embed_text(features), config.temperature, same)
        if not len(self.views):
            return {"loss": aligned}
        pooled = front.reduce(found).mean(-1)
        first, second = (F.normalize(view(pooled), dim=-1) for view in self.views)
        alone = info_nce(first, second, config.temperature)
        return {"loss": aligned + config.uni_modal * alone, "aligned": aligned, "uni_modal": alone}


def train_clip(
    config: ClipConfig,
    loop: LoopConfig,
    train: Waveforms,
    valid: Waveforms,
    folder: Path,
    *,
    reports: Reports | None = None,
    text: TextSide | None = None,
    batch: int = 64,
    valid_reports: Reports | None = None,
) -> tuple[Clip, list[dict[str, Any]]]:
    """Trains encoder and text head.

    Args:
        reports: one a training recording, None where there is none.
        text: the frozen text encoder.
        batch: pairs a batch.
        valid_reports: the same for `valid`; with them the log tells loss and recall of report retrieval there.

    Returns:
        The front-end in evaluation mode, and the log.

    Raises:
        UsageError: without a text side, or with one of another width.
        DataError: if fewer than two different reports are there.
    """
    pairs = _pairs(config, train, reports, text)
    assert text is not None  # _pairs has seen to it
    held = Pairs(valid, valid_reports, text) if valid_reports is not None and len(valid) else None
    torch.manual_seed(loop.seed)
    front_end = Clip(config)
    front_end.scaling.deviation.copy_(lead_deviations(train))
    front_end.mark_text(text.fingerprint)
    front_end.text_centre.copy_(pairs.features.mean(0))
    front_end.text_spread.copy_(pairs.features.std(0, correction=0).clamp_min(1e-3))
    model = Alignment(front_end)

    def loss(trained: nn.Module, step: int, part: Part) -> Mapping[str, Tensor]:
        picks = np.random.default_rng((loop.seed, step)).choice(
            len(pairs.rows), min(batch, len(pairs.rows)), replace=False
        )
        texts = pairs.texts[picks]
        return trained(pairs.signal(picks), pairs.features[texts], texts)

    def evaluate() -> Mapping[str, float]:
        assert held is not None
        return retrieval_figures(front_end, held)

    inputs = f"{dumps(config)}{settings_of(loop)}{batch}{train.shape}{int(train[:, :, ::500].astype(np.int64).sum())}"
    digest = hashlib.sha256(inputs.encode())
    digest.update(pairs.rows.tobytes())
    digest.update(pairs.features.numpy().tobytes())
    log = fit(
        model,
        loss=loss,
        config=loop,
        folder=folder,
        evaluate=evaluate if held is not None and len(held.rows) > 1 else None,
        fingerprint=digest.hexdigest(),
        title="CLIP",
    )
    _standardise(front_end, train)
    return front_end, log


def _pairs(config: ClipConfig, train: Waveforms, reports: Reports | None, text: TextSide | None) -> Pairs:
    if text is None:
        raise UsageError(
            "CLIP aligns ECGs with a frozen text encoder, and none is given",
            where="[frontend] kind",
            remedy="Pass --text CHECKPOINT (a language model trained without ECGs).",
        )
    if text.rows.shape[1] != config.text_width:
        raise UsageError(
            f"text_width is {config.text_width}, and the text side has {text.rows.shape[1]}",
            where="[frontend.clip.config] text_width",
            remedy=f"Set text_width = {text.rows.shape[1]}.",
        )
    pairs = Pairs(train, reports if reports is not None else [None] * len(train), text)
    if len(pairs.distinct) < 2:
        raise DataError(
            f"{len(pairs.distinct)} different reports in {len(train)} recordings: nothing to tell apart",
            remedy="Train CLIP on a dataset with reports.",
        )
    return pairs


@torch.no_grad()
def embed_all(front_end: Clip, pairs: Pairs, most: int | None = None, batch: int = 32) -> Tensor:
    """Embeddings (R, D) of (at most) the first recordings."""
    picks = np.arange(len(pairs.rows))[:most]
    device = front_end.centre.device
    parts = [picks[first : first + batch] for first in range(0, len(picks), batch)]
    return torch.cat([front_end.embed(pairs.signal(part).to(device)) for part in parts])


@torch.no_grad()
def retrieval_figures(front_end: Clip, pairs: Pairs, most: int = VALID_MOST) -> dict[str, float]:
    """InfoNCE over batches of 64 ("loss"), and recall@k of each ECG's report among the distinct ones of the set."""
    ecg = embed_all(front_end, pairs, most)
    asked, wanted = pairs.texts[: len(ecg)].unique(return_inverse=True)
    wanted = wanted.to(ecg.device)
    candidates = front_end.embed_text(pairs.features[asked].to(ecg.device))
    losses = [
        info_nce(part, candidates[number], front_end.config.temperature, number)
        for part, number in zip(ecg.split(64), wanted.split(64), strict=True)
    ]
    chance = {f"chance@{k}": min(1.0, k / len(asked)) for k in (1, 10)}
    return {"loss": float(torch.stack(losses).mean()), **recall_at(ecg, candidates, wanted), **chance}


@torch.no_grad()
def _standardise(front_end: Clip, train: Waveforms, most: int = 64) -> None:
    """Measures mean and deviation of the feature map's channels over an even sample of the recordings."""
    rows = np.linspace(0, len(train) - 1, min(most, len(train))).astype(np.int64)
    front_end.centre.zero_()
    front_end.spread.fill_(1.0)
    parts = [
        front_end.encode(millivolts(train, part, np.zeros_like(part), train.shape[2]))
        for part in np.array_split(rows, -(-len(rows) // 16))
    ]
    values = torch.cat(parts).flatten(0, 1)  # (R * N, width)
    front_end.centre.copy_(values.mean(0))
    front_end.spread.copy_(values.std(0, correction=0).clamp_min(1e-3))

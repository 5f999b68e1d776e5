"""Stage 1 of TEST: the contrast that shapes its embeddings, and the released code's triplet loss beside it.

Sun et al., ICLR 2024, arXiv 2308.08241, section 3. A batch holds B sub-windows, none overlapping another. Each has two
positives: a weak view (noise and gain) and a strong one (pieces shuffled, and noise); all others are its negatives.

Readings and departures:

- Losses are means over the batch, and Equation 2 is one over its columns too, so that no term grows with a width.
- In Equation 2 the paper's anchor matrix m is one vector copied B times, whose columns are constant and have no
  direction; m here holds the batch's anchors, m+ their positives in the same order, m- windows of the next recording.
- Equation 3 as printed *subtracts* a sum over prototypes that contains + L_fea only through two minus signs:
  L_text = -mean_i sim(tp_i, e) + L_fea(e tp, e+ tp, e- tp). The similarity is the cosine.
- Equations 1 and 2 share one temperature; the paper gives none.
- Algorithm 1 trains the encoder on L_ins + L_text; L_fea by itself (section 3.2, Figure 1) is added with weight
  `feature`, 0 of which is the algorithm. All train together, not one after the other; no decoder is built (the paper:
  "can likewise be un-built").
- Adam is AdamW here, and the schedule that of all stages.
- `objective = "triplet"`: the released code (after Franceschi et al., NeurIPS 2019, arXiv 1901.10738) takes a random
  sub-crop as anchor, a crop inside it as positive, crops of others as negatives, and leaves text prototypes off.
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
from heartllm.frontends.test import TEST, TESTConfig
from heartllm.training.loop import LoopConfig, fit, settings_of
from heartllm.training.processes import Part
from heartllm.training.tokenizer import Waveforms, lead_deviations, millivolts

if TYPE_CHECKING:
    from heartllm.language.text_side import TextSide

VALID_DRAWS = 8  # batches that a validation averages over


def instance_loss(anchor: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Equation 1 on projected embeddings (B, M): each anchor finds its positive among itself and the other anchors."""
    a, p = F.normalize(anchor, dim=-1), F.normalize(positive, dim=-1)
    positives = (a * p).sum(-1, keepdim=True)  # (B, 1)
    negatives = (a @ a.T)[~torch.eye(len(a), dtype=torch.bool, device=a.device)].view(len(a), -1)  # (B, B - 1)
    logits = torch.cat([positives, negatives], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(a), dtype=torch.int64, device=a.device))


def feature_loss(anchor: Tensor, positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Equation 2 behind its arrow, on (B, M): each *column* of the anchors finds itself among the others' columns."""
    a, p, n = (F.normalize(part, dim=0) for part in (anchor, positive, negative))
    logits = torch.cat([a.T @ p, a.T @ n], 1) / temperature  # (M, 2 M)
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def text_loss(
    prototypes: Tensor, anchor: Tensor, positive: Tensor, negative: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Equation 3 on embeddings (B, M) and prototypes (P, M): (loss, mean cosine of embeddings and prototypes)."""
    cosine = (F.normalize(anchor, dim=-1) @ F.normalize(prototypes, dim=-1).T).mean()
    coordinates = [part @ prototypes.T for part in (anchor, positive, negative)]  # (B, P) each
    return feature_loss(coordinates[0], coordinates[1], coordinates[2], temperature) - cosine, cosine


def triplet_loss(anchor: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """The released code's loss on (B, M), (B, M) and (B, K, M): mean of -log s(a p) - mean_k log s(-a n_k)."""
    near = F.logsigmoid((anchor * positive).sum(-1))
    far = F.logsigmoid(-(negatives @ anchor[..., None])[..., 0]).mean(-1)
    return -(near + far).mean()


def text_prototypes(rows: Tensor, count: int, seed: int = 0, rounds: int = 100) -> Tensor:
    """k-means centres (count, M) of embedding rows (V, M): Lloyd's algorithm from k-means++ seeds.

    Raises:
        DataError: if there are fewer rows than centres.
    """
    if len(rows) < count:
        raise DataError(
            f"{len(rows)} text rows cannot give {count} prototypes",
            where="[frontend.test.config] prototypes",
            remedy="Ask for fewer.",
        )
    rows = rows.detach().float().cpu()
    rng = np.random.default_rng(seed)
    centres = rows[[int(rng.integers(len(rows)))]]
    while len(centres) < count:  # the next seed is drawn with a chance that grows with the distance to the nearest
        distance = torch.cdist(rows, centres).amin(1).double().square().numpy()
        chance = distance / distance.sum() if distance.sum() > 0 else None
        centres = torch.cat([centres, rows[[int(rng.choice(len(rows), p=chance))]]])
    nearest = torch.full((len(rows),), -1)
    for _ in range(rounds):
        now = torch.cdist(rows, centres).argmin(1)
        if torch.equal(now, nearest):
            break
        nearest = now
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        sizes = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(sizes > 0, sums / sizes.clamp_min(1), centres)
    return centres


def weak_view(windows: Tensor, config: TESTConfig, generator: torch.Generator) -> Tensor:
    """Jitter and scale: (B, 12, t) with a gain of each lead about 1, and noise."""
    gain = 1 + config.scale * torch.randn(*windows.shape[:2], 1, generator=generator)
    noise = config.jitter * torch.randn(windows.shape, generator=generator)
    return windows * gain.to(windows.device) + noise.to(windows.device)


def strong_view(windows: Tensor, config: TESTConfig, generator: torch.Generator, rng: np.random.Generator) -> Tensor:
    """Permutation and jitter: each window cut at random into 2 to `segments` pieces that change places, and noise."""
    length = windows.shape[-1]
    order = np.empty((len(windows), length), np.int64)
    for row in order:
        cuts = rng.choice(np.arange(1, length), int(rng.integers(1, min(config.segments, length))), replace=False)
        pieces = np.split(np.arange(length), np.sort(cuts))
        row[:] = np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])
    index = torch.from_numpy(order)[:, None].expand(windows.shape)
    noise = config.jitter * torch.randn(windows.shape, generator=generator)
    return windows.gather(-1, index.to(windows.device)) + noise.to(windows.device)


def draw_windows(waveforms: Waveforms, config: TESTConfig, batch: int, rng: np.random.Generator) -> Tensor:
    """(batch * windows, 12, window) mV: from each of `batch` recordings that many windows, none overlapping.

    Raises:
        DataError: if the recordings are too short for that.
    """
    slots = waveforms.shape[2] // config.window
    if slots < config.windows:
        raise DataError(
            f"a recording of {waveforms.shape[2]} samples has room for {slots} windows of {config.window}",
            where="[frontend.test.config] windows",
            remedy="Ask for fewer windows, or shorter ones.",
        )
    rows = rng.choice(len(waveforms), batch, replace=len(waveforms) < batch)
    start = rng.integers(waveforms.shape[2] - slots * config.window + 1, size=(batch, 1))
    places = np.stack([rng.permutation(slots)[: config.windows] for _ in rows])
    return millivolts(
        waveforms, np.repeat(rows, config.windows), (start + places * config.window).ravel(), config.window
    )


class Contrast(nn.Module):
    """What trains: the encoder f_e, the projection f_p, and the fixed prototypes that pull on them."""

    prototypes: Tensor

    def __init__(self, front_end: TEST, prototypes: Tensor | None) -> None:
        super().__init__()
        self.front_end = front_end
        width = front_end.config.width
        self.project = nn.Linear(width, width)
        self.register_buffer("prototypes", torch.zeros(0, width) if prototypes is None else prototypes.clone())

    def forward(self, windows: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """Windows (B, 12, t) mV, those of a recording behind one another -> named losses, "loss" their sum."""
        config = self.front_end.config
        scaled = self.front_end.scaling(windows.to(self.prototypes.device))
        if config.objective == "triplet":
            return {"loss": self._triplet(scaled, rng)}
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        views = [scaled, weak_view(scaled, config, generator), strong_view(scaled, config, generator, rng)]
        anchor, *positives = self.front_end.embed_windows(torch.cat(views)).chunk(3)
        negative = anchor.roll(config.windows if len(anchor) > config.windows else 1, 0)
        losses: dict[str, list[Tensor]] = {"instance": [], "feature": [], "text": [], "cosine": []}
        for positive in positives:
            tau, a, p, n = config.temperature, *(self.project(part) for part in (anchor, positive, negative))
            losses["instance"].append(instance_loss(a, p, tau))
            losses["feature"].append(feature_loss(a, p, n, tau))
            if len(self.prototypes):
                parts = text_loss(self.prototypes, anchor, positive, negative, tau)
                losses["text"].append(parts[0])
                losses["cosine"].append(parts[1])
        named = {name: torch.stack(values).mean() for name, values in losses.items() if values}
        weights = {"instance": config.instance, "feature": config.feature, "text": config.text}
        named["loss"] = torch.stack([weights[name] * named[name] for name in weights if name in named]).sum()
        return named

    def _triplet(self, scaled: Tensor, rng: np.random.Generator) -> Tensor:
        """Lengths are drawn once a batch; negatives are crops of windows of other recordings, as long as positives."""
        config, length = self.front_end.config, scaled.shape[-1]
        short = int(rng.integers(1, length + 1))
        long = int(rng.integers(short, length + 1))

        def crop(which: npt.NDArray[np.int64], first: npt.NDArray[np.int64], size: int) -> Tensor:
            index = torch.from_numpy(first[:, None] + np.arange(size))[:, None].to(scaled.device)
            return scaled[which].gather(-1, index.expand(-1, scaled.shape[1], -1))

        rows = np.arange(len(scaled))
        first = rng.integers(length - long + 1, size=len(rows))
        inside = first + rng.integers(long - short + 1, size=len(rows))
        anchor = self.front_end.embed_windows(crop(rows, first, long))
        positive = self.front_end.embed_windows(crop(rows, inside, short))
        step = config.windows if len(rows) > config.windows else 1  # behind it, every row is of another recording
        others = (
            rows[:, None] // step * step + step + rng.integers(len(rows) - step, size=(len(rows), config.negatives))
        ) % len(rows)
        starts = rng.integers(length - short + 1, size=others.size)
        negatives = self.front_end.embed_windows(crop(others.ravel(), starts, short))
        return triplet_loss(anchor, positive, negatives.view(len(rows), config.negatives, -1))


def _prototypes(config: TESTConfig, text: TextSide | None, seed: int) -> Tensor | None:
    if config.objective == "triplet" or not config.text:
        return None
    if text is None:
        raise UsageError(
            "TEST aligns its embeddings with text rows, and no text side is given",
            where="[frontend.test.config] text",
            remedy="Pass --text CHECKPOINT (a language model trained without ECGs), or set text = 0.0.",
        )
    if text.rows.shape[1] != config.width:
        raise UsageError(
            f"width is {config.width}, and the text side's rows have {text.rows.shape[1]}",
            where="[frontend.test.config] width",
            remedy=f"Set width = {text.rows.shape[1]}.",
        )
    return text_prototypes(text.rows, config.prototypes, seed)


def train_test(
    config: TESTConfig,
    loop: LoopConfig,
    train: Waveforms,
    valid: Waveforms,
    folder: Path,
    *,
    reports: Sequence[str | None] | None = None,
    text: TextSide | None = None,
    batch: int = 16,
) -> tuple[TEST, list[dict[str, Any]]]:
    """Trains the encoder; reports are not looked at.

    Args:
        batch: recordings a batch; `config.windows` sub-windows are drawn from each.
        text: gives the rows whose k-means centres are the text prototypes.

    Returns:
        The front-end in evaluation mode, and the log.

    Raises:
        UsageError: if the text term has a weight and there is no text side, or one of another width.
        DataError: if there are no recordings, or they are too short.
    """
    if not len(train) or batch * config.windows < 2:
        raise DataError(
            f"{len(train)} recordings, {batch * config.windows} windows a batch: nothing to contrast",
            remedy="Give at least one recording and two windows.",
        )
    torch.manual_seed(loop.seed)
    front_end = TEST(config)
    front_end.scaling.deviation.copy_(lead_deviations(train))
    model = Contrast(front_end, _prototypes(config, text, loop.seed))

    def loss(trained: nn.Module, step: int, part: Part) -> Mapping[str, Tensor]:
        rng = np.random.default_rng((loop.seed, step))
        return trained(draw_windows(train, config, batch, rng), rng)

    def evaluate() -> Mapping[str, float]:
        draws = []
        for number in range(VALID_DRAWS):
            rng = np.random.default_rng((loop.seed, number, 1))
            draws.append(model(draw_windows(valid, config, min(batch, len(valid)), rng), rng))
        return {name: float(torch.stack([draw[name] for draw in draws]).mean()) for name in draws[0]}

    inputs = f"{dumps(config)}{settings_of(loop)}{batch}{train.shape}{int(train[:, :, ::500].astype(np.int64).sum())}"
    digest = hashlib.sha256(inputs.encode())
    digest.update(model.prototypes.numpy().tobytes())
    log = fit(
        model,
        loss=loss,
        config=loop,
        folder=folder,
        evaluate=evaluate if len(valid) else None,
        fingerprint=digest.hexdigest(),
        title="TEST",
    )
    front_end.size.fill_(1.0)
    front_end.size.copy_(_size(front_end, train))
    return front_end, log


def _size(front_end: TEST, train: Waveforms, most: int = 32) -> Tensor:
    """Root mean square of the embeddings over an even sample of the recordings."""
    rows = np.linspace(0, len(train) - 1, min(most, len(train))).astype(np.int64)
    signal = millivolts(train, rows, np.zeros_like(rows), train.shape[2])
    return front_end.encode(signal).square().mean().sqrt().clamp_min(1e-6)

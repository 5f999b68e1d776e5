"""Stages 2 and 3, which differ in their recipe only: forecasting ECG codes, and tuning on questions and reports.

forecasting   prefix without questions; next-code loss (and reading), everything or new rows + LoRA
tuning        one ECG and up to 16 of its questions in a packed sequence; answer loss (and a little of the others)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from heartllm.config import dumps
from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Packed, collate
from heartllm.training.examples import EXACT, Drawing, Examples, at, draw_sequence
from heartllm.training.loop import LoopConfig, fit
from heartllm.training.objective import Weights, language_losses
from heartllm.training.reading import ReadingHead

AUTHORS_WINDOWS = (
    (283, 30),
    (142, 15),
    (70, 7),
    (35, 4),
    (17, 2),
)  # (context, step) in codes, from their released code


@dataclass(frozen=True)
class LanguageRecipe:
    """Settings of a language-model stage.

    Attributes:
        batch: recordings a step.
        windows: forecasting targets: "dense" (every next code), or "authors" (one of their five windows, drawn anew for
            each sequence, of whose codes only the last few carry loss).
        valid_ecgs: recordings a validation looks at.
    """

    loop: LoopConfig
    weights: Weights = field(default_factory=Weights)
    drawing: Drawing = field(default_factory=Drawing)
    batch: int = 8
    windows: Literal["dense", "authors"] = "dense"
    valid_ecgs: int = 160


def keep_windows(sequence: Packed, rng: np.random.Generator) -> Packed:
    """One of the authors' windows of a sequence without questions: `context` codes, then `step` that carry loss."""
    context, step = AUTHORS_WINDOWS[int(rng.integers(len(AUTHORS_WINDOWS)))]
    targets = np.flatnonzero(sequence.forecast != IGNORED)
    start = int(rng.integers(max(1, len(targets) - context - step + 1)))
    cut = slice(int(targets[start]), int(targets[min(start + context + step, len(targets)) - 1]) + 1)
    forecast = sequence.forecast[cut].copy()
    forecast[: -step or None] = IGNORED
    return Packed(sequence.ids[cut], np.arange(len(forecast)), sequence.branch[cut], sequence.labels[cut], forecast)


def train_language(
    model: ECGLanguageModel,
    recipe: LanguageRecipe,
    train: Examples,
    valid: Examples,
    folder: Path,
    *,
    title: str,
    mark: str = "",
) -> list[dict[str, Any]]:
    """Trains `model` in place; the reading head lives and dies here. Returns the log."""
    hidden = int(model.backbone.config.hidden_size)
    torch.manual_seed(recipe.loop.seed)
    head = ReadingHead(hidden, len(train.names)) if recipe.weights.reading and not recipe.drawing.blind else None
    if head is not None:
        head.to(model.rows.special.device)
    both = nn.ModuleDict({"language": model} | ({"reading": head} if head is not None else {}))

    def losses(examples: Examples, rows: Sequence[int], how: Drawing, rng: np.random.Generator) -> Mapping[str, Tensor]:
        drawn = [examples.row(row) for row in rows]
        sequences = [draw_sequence(row, examples.vocabulary, model.levels, how, rng) for row in drawn]
        if recipe.windows == "authors":
            sequences = [keep_windows(sequence, rng) for sequence in sequences]
        findings = torch.from_numpy(np.stack([row.findings for row in drawn]))
        return language_losses(model, head, collate(sequences, examples.vocabulary.pad), findings, recipe.weights)

    def loss(step: int) -> Mapping[str, Tensor]:
        rows = [at(step * recipe.batch + i, len(train), recipe.loop.seed) for i in range(recipe.batch)]
        return losses(train, rows, recipe.drawing, np.random.default_rng((recipe.loop.seed, step)))

    def evaluate() -> Mapping[str, float]:
        how = replace(
            EXACT, blind=recipe.drawing.blind, questions=recipe.drawing.questions, features=recipe.drawing.features
        )
        rng, sums, count = np.random.default_rng(1), dict[str, float](), 0
        for first in range(0, min(recipe.valid_ecgs, len(valid)), recipe.batch):
            rows = range(first, min(first + recipe.batch, recipe.valid_ecgs, len(valid)))
            for name, value in losses(valid, rows, how, rng).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(rows)
            count += len(rows)
        return {name: value / count for name, value in sums.items()}

    return fit(
        both,
        loss=loss,
        config=recipe.loop,
        folder=folder,
        evaluate=evaluate,
        fingerprint=f"{mark}\n{dumps(recipe)}",
        title=title,
    )

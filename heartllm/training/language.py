"""Stages 2 and 3, which differ in their recipe only: forecasting ECG codes, and tuning on questions and reports.

forecasting   prefix without questions; next-code loss (and reading), everything or new rows + LoRA
tuning        one ECG and up to 16 of its questions in a packed sequence; answer loss (and a little of the others)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from heartllm.errors import UsageError
from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Packed, collate, pack
from heartllm.language.prompts import prompt_ids
from heartllm.language.vocabulary import Vocabulary
from heartllm.training.ahead import Ahead
from heartllm.training.compiling import compiled_layers
from heartllm.training.examples import EXACT, Drawing, Examples, at, draw_sequence
from heartllm.training.loop import LoopConfig, fit, settings_of
from heartllm.training.memory import recomputed_layers
from heartllm.training.objective import Asking, Heads, Objective, Weights, counted
from heartllm.training.processes import Part
from heartllm.training.reading import wordings

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
        precision: of the matrix products in training; weights, sums and losses stay in float32. "bfloat16" halves the
            time on processors and GPUs that multiply in it.
        asked: findings that a step asks for in words, where `weights.matching` is set.
        layers_above: layers between reading supervision and the output, see `heartllm.training.objective.Heads`.
        compile: the decoder layers, see `heartllm.training.compiling`: about a seventh less time a step on a
            CPU for half a minute at the start. Results differ in the last digits.
        checkpointing: compute the decoder layers twice and keep their inputs alone, see `heartllm.training.memory`:
            less memory, about a third more time, the same result.
    """

    loop: LoopConfig
    weights: Weights = field(default_factory=Weights)
    drawing: Drawing = field(default_factory=Drawing)
    batch: int = 8
    windows: Literal["dense", "authors"] = "dense"
    valid_ecgs: int = 160
    precision: Literal["float32", "bfloat16"] = "float32"
    asked: int = 64
    layers_above: int = 1
    compile: bool = False
    checkpointing: bool = False

    def on(self, device: str | None) -> LanguageRecipe:
        """The same on another device; as it is for None."""
        return self if device is None else replace(self, loop=replace(self.loop, device=device))


def keep_windows(sequence: Packed, rng: np.random.Generator) -> Packed:
    """One of the authors' windows of a sequence without questions: `context` codes, then `step` that carry loss."""
    context, step = AUTHORS_WINDOWS[int(rng.integers(len(AUTHORS_WINDOWS)))]
    targets = np.flatnonzero(sequence.forecast != IGNORED)
    start = int(rng.integers(max(1, len(targets) - context - step + 1)))
    cut = slice(int(targets[start]), int(targets[min(start + context + step, len(targets)) - 1]) + 1)
    forecast = sequence.forecast[cut].copy()
    forecast[: -step or None] = IGNORED
    return replace(
        sequence,
        ids=sequence.ids[cut],
        positions=np.arange(len(forecast)),
        branch=sequence.branch[cut],
        labels=sequence.labels[cut],
        forecast=forecast,
        ecg=sequence.ecg[cut],
    )


@dataclass(frozen=True)
class Drawn:
    """A batch: its packed sequences, their findings (B, F) int8, and the questions to match, which all rows share."""

    sequences: list[Packed]
    findings: Tensor
    asking: Asking | None

    def of(self, part: Part) -> Drawn:
        """The rows of a part."""
        rows = part.of(len(self.sequences))
        return Drawn(self.sequences[rows], self.findings[rows], self.asking)

    def shares(self, part: Part) -> dict[str, float]:
        """How much of what each term counts lies in a part."""
        mine = self.of(part)
        whole, own = (counted(one.sequences, one.findings, one.asking) for one in (self, mine))
        return {name: own[name] / max(1, whole[name]) for name in whole}


class Asker:
    """Draws questions about findings, in any of their wordings, for `heartllm.training.reading.MatchingHead`."""

    def __init__(self, names: Sequence[str], vocabulary: Vocabulary) -> None:
        self.pad, head = vocabulary.pad, vocabulary.bos
        self.prompts = [
            (
                names.index(name),
                [np.concatenate([head, prompt_ids(vocabulary, text)]).astype(np.int64) for text in texts],
            )
            for name, texts in wordings(names).items()
        ]

    def draw(self, count: int, rng: np.random.Generator) -> Asking | None:
        """At most `count` findings, each in one wording; None where no template asks for any of them."""
        if not self.prompts:
            return None
        chosen = [self.prompts[i] for i in rng.permutation(len(self.prompts))[:count]]
        prompts = [pack(texts[int(rng.integers(len(texts)))], []) for _, texts in chosen]
        return Asking(collate(prompts, self.pad), torch.tensor([finding for finding, _ in chosen]))


def check_objective(recipe: LanguageRecipe, soft: bool) -> None:
    """Refuses what cannot be trained on soft tokens: their next one is no class of a vocabulary.

    Raises:
        UsageError: naming the setting.
    """
    weights = recipe.weights
    if soft and recipe.windows != "dense":
        raise UsageError(
            "forecasting windows need codes, and this front-end has none",
            where="windows",
            remedy='Write windows = "dense".',
        )
    if soft and not (weights.answer or weights.reading or weights.matching):
        raise UsageError(
            "a stage of forecasting alone needs codes, and this front-end has none",
            where="weights",
            remedy="Give reading or matching a weight, or leave the stage out (pretrain = false).",
        )


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
    """Trains `model` in place; the heads of reading supervision live and die here. Returns the log."""
    hidden = int(model.backbone.config.hidden_size)
    check_objective(recipe, model.soft is not None)
    torch.manual_seed(recipe.loop.seed)
    heads = None if recipe.drawing.blind else Heads(hidden, len(train.names), recipe.weights, recipe.layers_above)
    asker = Asker(train.names, train.vocabulary) if heads is not None and recipe.weights.matching else None
    both = Objective(model, heads, recipe.weights, recipe.precision)

    def draw(examples: Examples, rows: Sequence[int], how: Drawing, rng: np.random.Generator) -> Drawn:
        drawn = [examples.row(row) for row in rows]
        sequences = [draw_sequence(row, examples.vocabulary, model.levels, how, rng) for row in drawn]
        if recipe.windows == "authors":
            sequences = [keep_windows(sequence, rng) for sequence in sequences]
        findings = torch.from_numpy(np.stack([row.findings for row in drawn]))
        return Drawn(sequences, findings, asker.draw(recipe.asked, rng) if asker is not None else None)

    def drawn_at(step: int) -> Drawn:
        rows = [at(step * recipe.batch + i, len(train), recipe.loop.seed) for i in range(recipe.batch)]
        return draw(train, rows, recipe.drawing, np.random.default_rng((recipe.loop.seed, step)))

    def losses(trained: nn.Module, drawn: Drawn, part: Part) -> Mapping[str, Tensor]:
        shares = None if part.count == 1 else drawn.shares(part)
        drawn = drawn.of(part)
        found = trained(collate(drawn.sequences, train.vocabulary.pad), drawn.findings, drawn.asking, shares)
        # Into the log, so that budgets of systems can be compared.
        return {**found, "positions": torch.tensor(float(sum(len(sequence.ids) for sequence in drawn.sequences)))}

    def loss(trained: nn.Module, step: int, part: Part) -> Mapping[str, Tensor]:
        return losses(trained, batches(step), part)

    def evaluate() -> Mapping[str, float]:
        how = replace(
            EXACT, blind=recipe.drawing.blind, questions=recipe.drawing.questions, features=recipe.drawing.features
        )
        rng, sums, count = np.random.default_rng(1), dict[str, float](), 0
        for first in range(0, min(recipe.valid_ecgs, len(valid)), recipe.batch):
            rows = range(first, min(first + recipe.batch, recipe.valid_ecgs, len(valid)))
            for name, value in losses(both, draw(valid, rows, how, rng), Part()).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(rows)
            count += len(rows)
        return {name: value / count for name, value in sums.items()}

    with (
        Ahead(drawn_at, recipe.loop.steps) as batches,
        compiled_layers(model, recipe.loop.device) if recipe.compile else nullcontext(),
        recomputed_layers(model) if recipe.checkpointing else nullcontext(),
    ):
        return fit(
            both,
            loss=loss,
            config=recipe.loop,
            folder=folder,
            batch=recipe.batch,
            evaluate=evaluate,
            fingerprint=f"{mark}\n{settings_of(recipe)}",
            title=title,
        )

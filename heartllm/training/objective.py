"""What the language model is trained on, in one function: answers, the next ECG code, and findings.

    loss = answer_weight * answer + forecast_weight * forecast + reading_weight * reading

each term a mean in nats: over answer tokens (teacher forcing), over ECG codes (dense next-token prediction), and over
labelled findings (see `heartllm.training.reading`). The forecasting stage has no answers; the tuning stage may use all
three.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Batch
from heartllm.training.reading import ReadingHead, read_positions


@dataclass(frozen=True)
class Weights:
    """Weights of the three terms. The paper's forecasting is (0, 1, 0), its tuning (1, 0, 0)."""

    answer: float = 1.0
    forecast: float = 0.0
    reading: float = 0.0


def masked_mean(model: ECGLanguageModel, hidden: Tensor, labels: Tensor, table: Tensor) -> Tensor:
    """Mean negative log likelihood of the labels (B, S) that are not IGNORED, at hidden states (B, S, hidden)."""
    kept = labels != IGNORED
    if not bool(kept.any()):
        return hidden[:0].sum()  # zero, and yet something to differentiate
    return model.token_losses(hidden[kept], labels[kept], table=table).mean()


def language_losses(
    model: ECGLanguageModel, head: ReadingHead | None, batch: Batch, findings: Tensor, weights: Weights
) -> dict[str, Tensor]:
    """The weighted loss under "loss", and each term that has a weight.

    Args:
        batch: packed sequences.
        findings: (B, F) int8 reading targets.
    """
    table = model.table()
    batch, findings = batch.to(table.device), findings.to(table.device)
    hidden, layers = model.hidden_states(batch.ids, batch.positions, batch.mask, table=table, all_layers=True)
    output = table if model.tied else model.output_table()
    terms: dict[str, Tensor] = {}
    if weights.answer:
        terms["answer"] = weights.answer * masked_mean(model, hidden, batch.labels, output)
    if weights.forecast:
        terms["forecast"] = weights.forecast * masked_mean(model, hidden, batch.forecast, output)
    if weights.reading and head is not None:
        positions = read_positions(batch.branch, batch.forecast)
        # The states below the last layer: what the last layer's attention can still fetch for a question.
        terms["reading"] = weights.reading * head(layers[-2], positions, findings)
    total = torch.stack(list(terms.values())).sum()
    return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

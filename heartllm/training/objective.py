"""What the language model is trained on, in one function: answers, the next ECG code, and findings.

    loss = answer_weight * answer + forecast_weight * forecast + reading_weight * reading + matching_weight * matching

each term a mean in nats: over answer tokens (teacher forcing), over ECG codes (dense next-token prediction; zero for a
continuous front-end, which has none), over labelled findings, and over questions about them (for both see
`heartllm.training.reading`). The forecasting stage has no answers; the tuning stage may use all four.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Batch, Packed
from heartllm.training.reading import UNLABELLED, MatchingHead, ReadingHead, read_positions


@dataclass(frozen=True)
class Weights:
    """Weights of the four terms. The paper's forecasting is (0, 1, 0), its tuning (1, 0, 0)."""

    answer: float = 1.0
    forecast: float = 0.0
    reading: float = 0.0
    matching: float = 0.0


class Heads(nn.Module):
    """The heads of reading supervision that `weights` ask for; they live as long as one stage of training.

    Args:
        hidden: width of the language model.
        findings: F, the reading targets.
        above: how many layers lie above the states that are looked at, and can still fetch them for a question.
    """

    def __init__(self, hidden: int, findings: int, weights: Weights, above: int = 1) -> None:
        super().__init__()
        self.above = above
        self.reading = ReadingHead(hidden, findings) if weights.reading else None
        self.matching = MatchingHead(hidden) if weights.matching else None


def masked_mean(model: ECGLanguageModel, hidden: Tensor, labels: Tensor, table: Tensor) -> Tensor:
    """Mean negative log likelihood of the labels (B, S) that are not IGNORED, at hidden states (B, S, hidden)."""
    kept = labels != IGNORED
    if not bool(kept.any()):
        return hidden[:0].sum()  # zero, and yet something to differentiate
    return model.token_losses(hidden[kept], labels[kept], table=table).mean()


@dataclass(frozen=True)
class Asking:
    """Questions about findings, to be read by themselves.

    Attributes:
        prompts: Q padded prompts.
        findings: (Q,) int64, which finding each asks for.
    """

    prompts: Batch
    findings: Tensor


def question_states(model: ECGLanguageModel, prompts: Batch, table: Tensor, above: int) -> Tensor:
    """(Q, hidden): the states at the last token of each prompt, `above` layers below the top."""
    prompts = prompts.to(table.device)
    _, layers = model.hidden_states(prompts.ids, prompts.positions, prompts.mask, table=table, all_layers=True)
    last = (prompts.branch == 0).sum(1) - 1
    states: Tensor = layers[-1 - above]
    return states[torch.arange(len(last), device=states.device), last]


def language_losses(
    model: ECGLanguageModel,
    heads: Heads | None,
    batch: Batch,
    findings: Tensor,
    weights: Weights,
    asking: Asking | None = None,
    shares: Mapping[str, float] | None = None,
) -> dict[str, Tensor]:
    """The weighted loss under "loss", and each term that has a weight.

    Args:
        heads: None for a model that is trained blind, which has nothing to read.
        batch: packed sequences.
        findings: (B, F) int8 reading targets.
        asking: the questions to match, where the weights ask for it.
        shares: of each term, where the sequences are part of a batch: the share that they have in what it counts.
    """
    table = model.table()
    batch, findings = batch.to(table.device), findings.to(table.device)
    hidden, layers = model.hidden_states(
        batch.ids, batch.positions, batch.mask, values=batch.values, table=table, all_layers=True
    )
    output = table if model.tied else model.output_table()
    terms: dict[str, Tensor] = {}
    if weights.answer:
        terms["answer"] = weights.answer * masked_mean(model, hidden, batch.labels, output)
    if weights.forecast:
        terms["forecast"] = weights.forecast * masked_mean(model, hidden, batch.forecast, output)
    if heads is not None:
        positions = read_positions(batch.ecg)
        states = layers[-1 - heads.above]
        if heads.reading is not None:
            terms["reading"] = weights.reading * heads.reading(states, positions, findings)
        if heads.matching is not None and asking is not None:
            questions = question_states(model, asking.prompts, table, heads.above)
            targets = findings[:, asking.findings.to(findings.device)]
            terms["matching"] = weights.matching * heads.matching(states, positions, questions, targets)
    if shares is not None:
        terms = {name: shares[name] * value for name, value in terms.items()}
    total = torch.stack(list(terms.values())).sum()
    return {"loss": total, **{name: value.detach() for name, value in terms.items()}}


def counted(sequences: Sequence[Packed], findings: Tensor, asking: Asking | None) -> dict[str, int]:
    """Over how many things each term is a mean."""
    read = torch.tensor([int(read_positions(torch.from_numpy(one.ecg)[None]).sum()) for one in sequences])
    asked = findings[:, :0] if asking is None else findings[:, asking.findings]
    return {
        "answer": sum(int((one.labels != IGNORED).sum()) for one in sequences),
        "forecast": sum(int((one.forecast != IGNORED).sum()) for one in sequences),
        "reading": int((read * (findings != UNLABELLED).sum(1)).sum()),
        "matching": int((read * (asked != UNLABELLED).sum(1)).sum()),
    }


class Objective(nn.Module):
    """What a language stage trains, its loss as one call: that is what several processes exchange gradients of."""

    def __init__(
        self, language: ECGLanguageModel, heads: Heads | None, weights: Weights, precision: str = "float32"
    ) -> None:
        super().__init__()
        self.language = language
        if heads is not None:
            self.heads = heads
        self.weights, self.precision = weights, precision

    def forward(
        self, batch: Batch, findings: Tensor, asking: Asking | None, shares: Mapping[str, float] | None
    ) -> dict[str, Tensor]:
        """See `language_losses`."""
        kind = self.language.rows.special.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16"):
            heads = getattr(self, "heads", None)
            return language_losses(self.language, heads, batch, findings, self.weights, asking, shares)

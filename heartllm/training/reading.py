"""Reading supervision: an aid for training that leaves no trace in the checkpoint.

Answers alone teach a small model little about where in 313 codes a finding lies. So while the language model learns, a
linear head on the states below its last layer predicts every labelled finding from every ECG position past the first
two seconds. Questions then find, in the last layer, what they ask for already spelt out. The head is thrown away;
weight 0 gives the paper's training. (This is ours, not the paper's.)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.data.records import NOISE_KINDS, Labels
from heartllm.ecg.recording import LEADS

UNLABELLED = -1
FIRST_POSITION = 64  # codes, about 2 s: before that most findings cannot be told
NORMAL_MS = {  # ECG-QA's limits of "within the normal range", milliseconds
    "rr interval": (600.0, 1000.0),
    "p duration": (0.0, 120.0),
    "pr interval": (120.0, 200.0),
    "qrs duration": (60.0, 100.0),
    "qt interval": (350.0, 440.0),
    "qt corrected": (340.0, 450.0),
}


def findings(labels: Labels) -> dict[str, bool]:
    """Everything that the labels say about a recording, as named yes/no facts; what is not labelled is absent."""
    facts: dict[str, bool] = {f"statement: {name}": True for name in labels.statements or {}}
    for kind in NOISE_KINDS if labels.noise is not None else ():
        leads = (labels.noise or {}).get(kind, frozenset())
        facts[f"noise: {kind}"] = bool(leads)
        facts |= {f"noise: {kind} in {lead}": lead in leads for lead in LEADS}
    facts |= {f"infarction: {stage}": True for stage in labels.infarction_stages or ()}
    facts |= {f"beats: {kind}": True for kind in labels.extra_systoles or ()}
    if labels.heart_axis is not None:
        facts[f"axis: {labels.heart_axis}"] = True
    for name, value in (labels.intervals or {}).items():
        if name in NORMAL_MS:
            low, high = NORMAL_MS[name]
            facts |= {f"{name}: below": value < low, f"{name}: above": value > high}
    return facts


def labelled(labels: Labels, name: str) -> bool:
    """Whether the labels say anything about the finding `name`, so that its absence means "no"."""
    field = {
        "statement": labels.statements,
        "noise": labels.noise,
        "infarction": labels.infarction_stages,
        "beats": labels.extra_systoles,
        "axis": labels.heart_axis,
    }
    group = name.split(":")[0]
    return field[group] is not None if group in field else group in (labels.intervals or {})


def finding_names(labels: Iterable[Labels], minimum: int) -> list[str]:
    """The findings that at least `minimum` of the recordings have, in alphabetical order."""
    counts: dict[str, int] = {}
    for one in labels:
        for name, value in findings(one).items():
            counts[name] = counts.get(name, 0) + value
    return sorted(name for name, count in counts.items() if count >= minimum)


def target_row(labels: Labels, names: list[str]) -> npt.NDArray[np.int8]:
    """(F,) int8: 1 yes, 0 no, UNLABELLED."""
    facts = findings(labels)
    return np.array(
        [int(facts.get(name, False)) if labelled(labels, name) or name in facts else UNLABELLED for name in names],
        np.int8,
    )


class ReadingHead(nn.Module):
    """One linear layer from hidden states to findings."""

    def __init__(self, hidden: int, findings: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, findings)

    def forward(self, states: Tensor, ecg: Tensor, targets: Tensor) -> Tensor:
        """Mean binary cross-entropy a labelled finding, in nats.

        Args:
            states: (B, S, hidden) below the last layer.
            ecg: (B, S) bool, the positions to read from.
            targets: (B, F) int8.
        """
        row, _ = ecg.nonzero(as_tuple=True)
        logits, wanted = self.linear(states[ecg]), targets[row]
        known = wanted != UNLABELLED
        loss = F.binary_cross_entropy_with_logits(logits, wanted.clamp_min(0).float(), reduction="none")
        return (loss * known).sum() / known.sum().clamp_min(1)


def read_positions(branch: Tensor, forecast: Tensor) -> Tensor:
    """(B, S) bool: ECG positions of the prefix past `FIRST_POSITION` codes."""
    codes = (branch == 0) & (forecast >= 0)
    return codes & (codes.long().cumsum(1) > FIRST_POSITION)

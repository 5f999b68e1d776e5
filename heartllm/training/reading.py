"""Reading supervision: two aids for training that leave no trace in the checkpoint.

Answers alone teach a small model little about where in 313 codes a finding lies, and less about which words ask for
it. So while the language model learns, two heads look at the states below its last layer:

- `ReadingHead`, linear, predicts every labelled finding from every ECG position past the first two seconds;
- `MatchingHead` does so from words: the language model reads "Does this ECG show ...?" by itself, and its state where
  the answer would begin is compared with each of those ECG positions as in an attention head. This ties the words to
  what they ask for, for every finding and not only for the few questions that a step draws.

The layers above then find both spelt out. The heads are thrown away; weights 0 give the paper's training. (This is
ours, not the paper's.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.data.question_views import NORMAL_RANGES, is_certain, range_of
from heartllm.data.records import Labels
from heartllm.data.statements import BY_NAME
from heartllm.data.templates import all_asked
from heartllm.ecg.recording import LEADS

UNLABELLED = -1
FIRST_POSITION = 64  # codes, about 2 s: before that most findings cannot be told


def findings(labels: Labels) -> dict[str, bool]:
    """Everything that the labels say about a recording, as named yes/no facts; what is not labelled is absent."""
    facts: dict[str, bool] = {f"statement: {name}": True for name in labels.statements or {}}
    for kind, leads in (labels.noise or {}).items():
        facts[f"noise: {kind}"] = bool(leads)
        facts |= {f"noise: {kind} in {lead}": lead in leads for lead in LEADS}
    facts |= {f"infarction: {stage}": True for stage in labels.infarction_stages or ()}
    facts |= {f"beats: {kind}": True for kind in labels.extra_systoles or ()}
    if labels.heart_axis is not None:
        facts[f"axis: {labels.heart_axis}"] = True
    for name, value in (labels.intervals or {}).items():
        if name in NORMAL_RANGES:  # those that the answers go by
            where = range_of(name, value)
            facts |= {f"{name}: {side}": where.startswith(side) for side in ("below", "above")}
    return facts


def uncertain(labels: Labels) -> set[str]:
    """The findings to which ECG-QA's yes/no question has the answer "not sure"."""
    return {
        f"statement: {name}"
        for name, likelihood in (labels.statements or {}).items()
        if name in BY_NAME and BY_NAME[name].diagnostic and not is_certain(likelihood)
    }


def labelled(labels: Labels, name: str) -> bool:
    """Whether the labels say anything about the finding `name`, so that its absence means "no"."""
    field = {
        "statement": labels.statements,
        "infarction": labels.infarction_stages,
        "beats": labels.extra_systoles,
        "axis": labels.heart_axis,
    }
    group, _, rest = name.partition(": ")
    if group == "noise":  # kind by kind: of some recordings nobody knows the leads
        return rest.partition(" in ")[0] in (labels.noise or {})
    return field[group] is not None if group in field else group in (labels.intervals or {})


_VIEWS = {  # views of ECG-QA's yes/no templates -> the name of a finding
    "statement": "statement: {a}",
    "noise": "noise: {a}",
    "noise in lead": "noise: {a} in {lead}",
    "stage": "infarction: {a}",
    "extra systole": "beats: {a}",
    "axis": "axis: {a}",
    "range": "{feature}: {range}",
}


def wordings(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Finding name -> the yes/no questions that ask for it, ECG-QA's sentence first, then our paraphrases.

    Findings that no template asks for are left out.
    """
    found = {}
    for asked in all_asked():
        if asked.template.form != "verify" or asked.template.view not in _VIEWS:
            continue
        slots = {**asked.slots, "lead": asked.slots.get("lead", "").removeprefix("lead ")}
        name = _VIEWS[asked.template.view].format(**slots).removesuffix(" the normal range")
        if name in names:
            count = len(asked.template.paraphrases)
            found[name] = (asked.text, *(asked.paraphrase(number) for number in range(count)))
    return found


def finding_names(labels: Iterable[Labels], minimum: int) -> list[str]:
    """The findings that at least `minimum` of the recordings have, in alphabetical order."""
    counts: dict[str, int] = {}
    for one in labels:
        for name, value in findings(one).items():
            counts[name] = counts.get(name, 0) + value
    return sorted(name for name, count in counts.items() if count >= minimum)


def target_row(labels: Labels, names: list[str]) -> npt.NDArray[np.int8]:
    """(F,) int8: 1 yes, 0 no, UNLABELLED where nothing is known or ECG-QA's answer is "not sure"."""
    facts, unsure = findings(labels), uncertain(labels)
    known = [(labelled(labels, name) or name in facts) and name not in unsure for name in names]
    return np.array(
        [int(facts.get(name, False)) if k else UNLABELLED for name, k in zip(names, known, strict=True)], np.int8
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
        return labelled_loss(self.linear(states[ecg]), targets[row])


class MatchingHead(nn.Module):
    """Compares each of some questions with each ECG position, as the logits of one attention head do."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.key, self.query, self.bias = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)

    def forward(self, states: Tensor, ecg: Tensor, questions: Tensor, targets: Tensor) -> Tensor:
        """Mean binary cross-entropy of a labelled question at an ECG position, in nats.

        Args:
            states: (B, S, hidden) below the last layers.
            ecg: (B, S) bool, the positions to read from.
            questions: (Q, hidden), the states of the same layer where each question's answer would begin.
            targets: (B, Q) int8: 1 yes, 0 no, UNLABELLED.
        """
        row, _ = ecg.nonzero(as_tuple=True)
        logits = self.key(states[ecg]) @ self.query(questions).T / states.shape[-1] ** 0.5 + self.bias(questions)[:, 0]
        return labelled_loss(logits, targets[row])


def labelled_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean binary cross-entropy over the labelled ones of `wanted` (int8, UNLABELLED where nothing is known)."""
    known = wanted != UNLABELLED
    loss = F.binary_cross_entropy_with_logits(logits.float(), wanted.clamp_min(0).float(), reduction="none")
    return (loss * known).sum() / known.sum().clamp_min(1)


def read_positions(ecg: Tensor) -> Tensor:
    """(B, S) where a code or soft token stands -> (B, S) bool: those past the first `FIRST_POSITION`."""
    return (ecg > 0) & (ecg.cumsum(1) > FIRST_POSITION)

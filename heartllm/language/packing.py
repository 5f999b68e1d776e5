"""Many questions behind one ECG: a prefix that all share, and branches that see the prefix and themselves only.

    prefix   <bos> features <start> c1 ... c313 <end>      positions 0 ... P-1
    branch   Question: ... Answer: a; b <eos>              positions P ...   (each branch starts again at P)

Token i may look at token j <= i if j is in the prefix or in i's own branch. Every branch so sees just what it would see
alone behind the prefix, and its loss is the same; the ECG is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IGNORED = -100
Ids = npt.NDArray[np.int64]
Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """One packed sequence of S tokens; every field but the last is (S,) int64.

    Attributes:
        ids: tokens.
        positions: RoPE positions, starting again after the prefix in every branch.
        branch: 0 in the prefix and 1, 2, ... in the branches.
        labels: the answer token that each position should predict, or IGNORED.
        forecast: likewise the next ECG code of the prefix; nowhere where there are no codes.
        ecg: 1 where a code or placeholder of the prefix stands, and 0 elsewhere.
        values: (M, width) float32 behind the placeholders, or None.
    """

    ids: Ids
    positions: Ids
    branch: Ids
    labels: Ids
    forecast: Ids
    ecg: Ids
    values: Values | None = None


def pack(
    prefix: Ids,
    pairs: Sequence[tuple[Ids, Ids]],
    ecg: tuple[int, int] | None = None,
    values: Values | None = None,
) -> Packed:
    """Joins a prefix (P,) and (prompt, answer) pairs; the answers carry the end token and all the labels.

    Args:
        ecg: first and last-plus-one position of the codes in the prefix; those become forecasting targets.
        values: behind the placeholders of a continuous front-end, which leaves nothing to forecast.
    """
    parts, positions, branch = [prefix], [np.arange(len(prefix))], [np.zeros(len(prefix), np.int64)]
    labels = [np.full(len(prefix), IGNORED, np.int64)]
    for number, (prompt, answer) in enumerate(pairs, start=1):
        both = np.concatenate([prompt, answer])
        parts.append(both)
        positions.append(np.arange(len(prefix), len(prefix) + len(both)))
        branch.append(np.full(len(both), number, np.int64))
        target = np.full(len(both), IGNORED, np.int64)
        target[len(prompt) - 1 : -1] = answer
        labels.append(target)
    ids = np.concatenate(parts)
    forecast = np.full(len(ids), IGNORED, np.int64)
    there = np.zeros(len(ids), np.int64)
    if ecg is not None:
        there[slice(*ecg)] = 1
        if values is None:
            forecast[ecg[0] - 1 : ecg[1] - 1] = prefix[slice(*ecg)]
    where, which, wanted = (np.concatenate(part) for part in (positions, branch, labels))
    return Packed(ids, where, which, wanted, forecast, there, values)


@dataclass(frozen=True)
class Batch:
    """Packed sequences padded to one length: all (B, S) int64, and values (B, M, width) float32 or None.

    The mask is (B, 1, S, S) bool, or None where no sequence has branches: plain causal attention then sees the same and
    costs half.
    """

    ids: Tensor
    positions: Tensor
    branch: Tensor
    labels: Tensor
    forecast: Tensor
    ecg: Tensor
    mask: Tensor | None
    values: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        parts = (getattr(self, part.name) for part in fields(self))
        return Batch(*(part if part is None else part.to(device) for part in parts))


def collate(sequences: Sequence[Packed], pad: int) -> Batch:
    """Pads on the right. Padding is a branch of its own (-1): nothing looks at it, and no row of the mask is empty."""
    length = max(len(sequence.ids) for sequence in sequences)

    def stack(name: str, fill: int) -> Tensor:
        rows = np.full((len(sequences), length), fill, np.int64)
        for row, sequence in enumerate(sequences):
            rows[row, : len(sequence.ids)] = getattr(sequence, name)
        return torch.from_numpy(rows)

    branch = stack("branch", -1)
    return Batch(
        stack("ids", pad),
        stack("positions", 0),
        branch,
        stack("labels", IGNORED),
        stack("forecast", IGNORED),
        stack("ecg", 0),
        block_mask(branch) if bool((branch > 0).any()) else None,
        pad_values([sequence.values for sequence in sequences]),
    )


def pad_values(rows: Sequence[Values | None]) -> Tensor | None:
    """(M, width) a row -> (B, most M, width) with zeros behind; None where no row has any."""
    given = [row for row in rows if row is not None]
    if not given:
        return None
    padded = torch.zeros(len(rows), max(map(len, given)), given[0].shape[1])
    for number, row in enumerate(rows):
        if row is not None:
            padded[number, : len(row)] = torch.from_numpy(row)
    return padded


def block_mask(branch: Tensor) -> Tensor:
    """(B, S) branch numbers -> (B, 1, S, S) bool: causal, and within the prefix or one's own branch."""
    causal = torch.ones(branch.shape[1], branch.shape[1], dtype=torch.bool, device=branch.device).tril()
    return (causal & shares(branch, branch))[:, None]


def shares(target: Tensor, source: Tensor) -> Tensor:
    """Branches (B, T) and (B, S) -> (B, T, S) bool: whether the source lies in the prefix or in the target's branch."""
    source = source[:, None, :]
    return (source == 0) | (source == target[:, :, None])

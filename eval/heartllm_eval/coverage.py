"""How well a map over the windows of an ECG finds a marked part: coverage, precision, AUC, and what chance gives.

A map gives each window a score; the marked windows are where a finding is known to lie. Chance is twofold:

- windows drawn at random: they cover a share of the finding equal to the share of windows taken, whatever the mask;
- the same mask shifted around the recording: its mean coverage is the same number (each marked window visits every
  place once), but its spread keeps the clumps of map and mask, so it says how often the *place* is found by luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SHARE = 0.2  # of the windows, those with the highest scores


@dataclass(frozen=True)
class Coverage:
    """One map against one mask.

    Attributes:
        covered: share of the marked windows that are among the top ones; `SHARE` by chance.
        precision: share of the top windows that are marked; `marked` by chance.
        auc: chance that a marked window scores higher than another one; 0.5 by chance.
        shift_rank: share of the mask's shifts around the recording that the top windows cover less (ties half); 0.5 by
            chance.
        marked: share of the windows that are marked.
        ceiling: the largest coverage that so few windows can reach.
    """

    covered: float
    precision: float
    auc: float
    shift_rank: float
    marked: float
    ceiling: float


def coverage(scores: Floats, mask: Mask, share: float = SHARE) -> Coverage:
    """Scores (N,) against a mask (N,) that marks some but not all windows.

    Raises:
        ValueError: if shapes differ, a score is not finite, or the mask marks none or all.
    """
    marked = int(mask.sum())
    if scores.shape != mask.shape or not 0 < marked < len(mask) or not np.isfinite(scores).all():
        raise ValueError("coverage needs finite scores and a mask of the same length that marks some windows, not all")
    taken = max(1, round(share * len(scores)))
    weights = top_weights(scores, taken)
    found = float(weights @ mask)
    shifted = shifted_coverage(weights, mask)
    rank = float((shifted < found / marked - 1e-12).mean() + 0.5 * (np.abs(shifted - found / marked) <= 1e-12).mean())
    return Coverage(
        found / marked, found / taken, auc(scores, mask), rank, marked / len(mask), min(1.0, taken / marked)
    )


def top_weights(scores: Floats, taken: int) -> Floats:
    """(N,) 1 for the `taken` highest scores, 0 for the others; equal scores at the border share what is left."""
    border = np.partition(scores, len(scores) - taken)[len(scores) - taken]
    above, level = scores > border, scores == border
    weights: Floats = above.astype(np.float64)
    weights[level] = (taken - above.sum()) / level.sum()
    return weights


def shifted_coverage(weights: Floats, mask: Mask) -> Floats:
    """(N - 1,) coverage of the mask at each of its shifts around the recording, its own place left out."""
    spectrum = np.fft.rfft(weights) * np.conj(np.fft.rfft(mask.astype(np.float64)))
    found: Floats = np.fft.irfft(spectrum, len(mask))[1:] / mask.sum()
    return np.round(found, 9)


def auc(scores: Floats, mask: Mask) -> float:
    """Area under the ROC curve of `scores` for `mask`; ties count half (Mann and Whitney)."""
    order = np.argsort(scores, kind="stable")
    values = scores[order]
    _, first, counts = np.unique(values, return_index=True, return_counts=True)
    ranks = np.empty(len(scores))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    positive = int(mask.sum())
    return float((ranks[mask].sum() - positive * (positive + 1) / 2) / (positive * (len(mask) - positive)))

"""Many pairs of token lists compared at once: n-gram overlaps and longest common subsequences, in numpy.

Pairs of like lengths are padded to a block of shape (H, R, B): H tokens of the hypothesis, R of the reference, B pairs
along the last axis, which is the one that the processor runs through. Whatever is counted starts from one comparison of
every token with every token. Memory grows with the product of the two lengths of a pair and, for n-grams, with the
square of the reference's; a hypothesis may therefore be very long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm_eval.metrics.base import Array

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.int32]
Counts = npt.NDArray[Any]  # of the narrowest unsigned type that holds them

_CELLS = 4_000_000  # H x R x B of a block, unless one pair alone has more
_PADS = (-1, -2)  # of hypothesis and reference: equal to nothing on the other side


@dataclass(frozen=True)
class Block:
    """Pairs of like lengths.

    Attributes:
        rows: (B,) which pairs.
        hypothesis, reference: (H, B) and (R, B) positions in `TokenPairs.ids`; -1 behind the end.
    """

    rows: Ints
    hypothesis: Ints
    reference: Ints

    def tokens(self, ids: Ids) -> tuple[Ids, Ids]:
        """Token ids (H, B) and (R, B); `ids` holds one for every position."""
        sides = (self.hypothesis, self.reference)
        first, second = (np.where(side >= 0, ids[side], np.int32(pad)) for side, pad in zip(sides, _PADS, strict=True))
        return first, second

    def equal(self, ids: Ids) -> Bools:
        """(H, R, B): which tokens are equal."""
        hypothesis, reference = self.tokens(ids)
        return hypothesis[:, None, :] == reference[None, :, :]


class TokenPairs:
    """Pairs of token lists, as integers.

    Attributes:
        words: the distinct tokens; a token's id is its index.
        ids: all tokens of the hypotheses, then all of the references.
        hypothesis_starts, reference_starts, hypothesis_lengths, reference_lengths: (pairs,), places in `ids`.
    """

    def __init__(self, hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> None:
        tokens = chain.from_iterable(chain(hypotheses, references))
        number: defaultdict[str, int] = defaultdict(count().__next__)
        self.hypothesis_lengths: Ints = np.fromiter(map(len, hypotheses), np.int64, len(hypotheses))
        self.reference_lengths: Ints = np.fromiter(map(len, references), np.int64, len(references))
        total = int(self.hypothesis_lengths.sum() + self.reference_lengths.sum())
        # One more at the end, so that position -1 can be read where there are no tokens at all.
        self.ids: Ids = np.fromiter(chain(map(number.__getitem__, tokens), (0,)), np.int32, total + 1)
        self.words = list(number)
        self.hypothesis_starts = np.cumsum(self.hypothesis_lengths) - self.hypothesis_lengths
        self.reference_starts = total - np.cumsum(self.reference_lengths[::-1])[::-1]

    def spans(self, hypotheses: tuple[Ints, Ints], references: tuple[Ints, Ints]) -> TokenPairs:
        """Pairs of parts of these texts, each side as (starts in `ids`, lengths)."""
        found = copy(self)
        found.hypothesis_starts, found.hypothesis_lengths = hypotheses
        found.reference_starts, found.reference_lengths = references
        return found

    def __len__(self) -> int:
        return len(self.hypothesis_lengths)

    def blocks(self) -> Iterator[Block]:
        """All pairs, those of like lengths together."""
        sizes = _padded(self.hypothesis_lengths), _padded(self.reference_lengths)
        order = np.lexsort(sizes)
        height, width = sizes[0][order], sizes[1][order]
        changes = np.flatnonzero((np.diff(height) != 0) | (np.diff(width) != 0)) + 1
        for part in np.split(order, changes):
            if not len(part):
                continue
            tall, wide = int(sizes[0][part[0]]), int(sizes[1][part[0]])
            step = max(1, _CELLS // (tall * wide))
            for start in range(0, len(part), step):
                rows = part[start : start + step]
                yield Block(
                    rows,
                    _positions(self.hypothesis_starts[rows], self.hypothesis_lengths[rows], tall),
                    _positions(self.reference_starts[rows], self.reference_lengths[rows], wide),
                )


def _padded(lengths: Ints) -> Ints:
    """Lengths rounded up to 8, 16, 24, 32, 48, 64, 96, ... so that there are few different blocks."""
    above = np.maximum(lengths, 1)
    half = 2.0 ** np.maximum(np.floor(np.log2(np.maximum(above - 1, 1))) - 1, 3)
    rounded: Ints = (np.ceil(above / half) * half).astype(np.int64)
    return rounded


def _positions(starts: Ints, lengths: Ints, height: int) -> Ints:
    steps = np.arange(height)[:, None]
    return np.where(steps < lengths, starts + steps, -1)


def counting_type(largest: int) -> Any:
    """The narrowest unsigned type for counts up to `largest`."""
    return np.uint8 if largest < 255 else np.uint16 if largest < 65_535 else np.uint32


def ngram_overlaps(pairs: TokenPairs, orders: int) -> tuple[Array, Array]:
    """How many n-grams a hypothesis shares with its reference, n = 1 ... `orders` -> (pairs, orders) twice.

    Returns:
        Clipped counts (each n-gram as often as in the side that has it less often), and numbers of distinct n-grams.
    """
    clipped: Array = np.zeros((len(pairs), orders))
    distinct: Array = np.zeros((len(pairs), orders))
    for block in pairs.blocks():
        hypothesis, reference = block.tokens(pairs.ids)
        kind = counting_type(max(len(hypothesis), len(reference)))
        equal = hypothesis[:, None, :] == reference[None, :, :]
        own = reference[:, None, :] == reference[None, :, :]
        shared, same = equal, own
        for order in range(1, orders + 1):
            if order > 1:
                if min(shared.shape[0], shared.shape[1]) < 2:
                    break
                shared = shared[:-1, :-1] & equal[order - 1 :, order - 1 :]
                same = same[:-1, :-1] & own[order - 1 :, order - 1 :]
            # Each place of the reference carries its share of its n-gram's count: summed, an n-gram counts once.
            theirs = shared.view(np.uint8).sum(axis=0, dtype=kind)
            ours = same.view(np.uint8).sum(axis=0, dtype=kind)
            share = np.minimum(theirs, ours) / ours.astype(np.float32)
            clipped[block.rows, order - 1] = np.rint(share.sum(axis=0, dtype=np.float64))
            once = (theirs > 0) / ours.astype(np.float32)
            distinct[block.rows, order - 1] = np.rint(once.sum(axis=0, dtype=np.float64))
    return clipped, distinct


def distinct_ngrams(pairs: TokenPairs) -> tuple[Array, Array]:
    """The numbers of distinct tokens and of distinct neighbours in each hypothesis and each reference, (pairs, 2) each.

    For texts that stand one behind the other in `ids` (no `spans`).
    """
    many = len(pairs)
    lengths = np.concatenate([pairs.hypothesis_lengths, pairs.reference_lengths])
    owner = np.repeat(np.arange(2 * many), lengths)
    tokens, vocabulary = pairs.ids[:-1].astype(np.int64), max(1, len(pairs.words))
    single = owner * vocabulary + tokens
    inside = owner[1:] == owner[:-1]
    double = (single[:-1] * vocabulary + tokens[1:])[inside]
    found: Array = np.empty((2 * many, 2))
    for column, codes in enumerate((single, double)):
        codes = np.sort(codes)
        first = np.ones(len(codes), np.bool_)
        np.not_equal(codes[1:], codes[:-1], out=first[1:])
        found[:, column] = np.bincount(codes[first] // vocabulary ** (column + 1), minlength=2 * many)
    return found[:many], found[many:]


def _increments(equal: Bools) -> Bools:
    """equal (H, R, B) -> (H, R, B): whether the longest common subsequence of the first tokens grows with token h.

    At r it is that with the reference's first r + 1 tokens; summed over h, its length.
    """
    height, width, many = equal.shape
    row = np.zeros((height + 1, many), counting_type(min(height, width)))
    grows = np.empty(equal.shape, np.bool_)
    for index in range(width):
        longer = row[:-1] + equal[:, index]
        np.maximum(longer, row[1:], out=longer)
        if many < 64:
            np.maximum.accumulate(longer, axis=0, out=longer)
        else:  # the same, along the axis that the processor runs through: 20 times faster
            for below, above in zip(longer[1:], longer[:-1], strict=True):
                np.maximum(below, above, out=below)
        row[1:] = longer
        np.greater(row[1:], row[:-1], out=grows[:, index])
    return grows


def lcs_lengths(pairs: TokenPairs) -> Array:
    """(pairs,): lengths of the longest common subsequences."""
    found: Array = np.zeros(len(pairs))
    for block in pairs.blocks():
        found[block.rows] = _increments(block.equal(pairs.ids))[:, -1].sum(axis=0)
    return found


_GROWS, _EQUAL, _END = 1, 2, 4


def lcs_words(pairs: TokenPairs) -> tuple[Ints, Ints]:
    """The words of one longest common subsequence of each pair -> which pair, which word id (both of one length).

    The walk back from the ends takes equal tokens; otherwise it drops a token of the reference if the subsequence is
    then no shorter and dropping the hypothesis's would make it so, and else one of the hypothesis.
    """
    owners, words = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for block in pairs.blocks():
        equal = block.equal(pairs.ids)
        some = np.flatnonzero(equal.any(axis=1).any(axis=0))
        equal, rows = equal[:, :, some], block.rows[some]
        height, width, many = equal.shape
        state = np.full((height + 1, width + 1, many), _END, np.uint8)
        np.add(_EQUAL * equal.view(np.uint8), _increments(equal), out=state[1:, 1:])
        left, up = (width + 1) * many, many
        steps = np.array([left, up, left + up, left + up])
        place = pairs.hypothesis_lengths[rows] * left + pairs.reference_lengths[rows] * up + np.arange(many)
        flat = state.ravel()
        while len(place):
            here = flat[place]
            hits = place[(here & _EQUAL) > 0]
            columns = hits % many
            owners.append(rows[columns])
            words.append(pairs.ids[block.reference[hits // up % (width + 1) - 1, some[columns]]].astype(np.int64))
            place = place - steps[here]
            place = place[flat[place] != _END]
    return np.concatenate(owners), np.concatenate(words)

"""Embedding rows for the tokens that are new to the language model.

An opaque row is a free vector for each of the 1,296 codes, most of them seen rarely. A digit row is the sum of four
level embeddings, `row(code) = sum_i level_i[digit_i(code)]`: 24 vectors learn from every code, and neighbouring codes
start out similar. After training either is just rows of the embedding table.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from heartllm.codec.fsq import FSQ
from heartllm.language.vocabulary import NEW_SPECIALS


class CodeRows(nn.Module):
    """`forward()` -> (2 + codes, hidden): rows for start, end and every code.

    Args:
        levels: FSQ levels; empty for codes that are names and not numbers, whose rows are always opaque.
        hidden: width of the language model.
        kind: "digits" (sum of level embeddings), or "opaque".
        deviation: of the initial entries; match the backbone's text rows.
        codes: how many, where `levels` does not say.
    """

    digits: Tensor

    def __init__(
        self,
        levels: tuple[int, ...],
        hidden: int,
        kind: Literal["digits", "opaque"],
        deviation: float = 0.02,
        codes: int = 0,
    ) -> None:
        super().__init__()
        self.kind = kind if levels else "opaque"
        self.special = nn.Parameter(torch.randn(NEW_SPECIALS, hidden) * deviation)
        if self.kind == "opaque":
            self.code = nn.Parameter(torch.randn(math.prod(levels) if levels else codes, hidden) * deviation)
        else:
            fsq = FSQ(levels)
            share = deviation / len(levels) ** 0.5
            self.level = nn.Parameter(torch.randn(sum(levels), hidden) * share)
            first = torch.tensor([sum(levels[:i]) for i in range(len(levels))])
            self.register_buffer("digits", fsq.index_to_digits(torch.arange(fsq.codes)) + first, persistent=False)

    def forward(self) -> Tensor:
        code = self.code if self.kind == "opaque" else self.level[self.digits].sum(1)
        return torch.cat([self.special, code])

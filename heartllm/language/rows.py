"""Embedding rows for the tokens that are new to the language model.

An opaque row is a free vector for each of the 1,296 codes, most of them seen rarely. A digit row is the sum of four
level embeddings, `row(code) = sum_i level_i[digit_i(code)]`: 24 vectors learn from every code, and neighbouring codes
start out similar. After training either is just rows of the embedding table.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from heartllm.codec.fsq import FSQ
from heartllm.language.vocabulary import NEW_SPECIALS


class CodeRows(nn.Module):
    """`forward()` -> (2 + codes, hidden): rows for start, end and every code.

    Args:
        levels: FSQ levels.
        hidden: width of the language model.
        kind: "digits" (sum of level embeddings), or "opaque".
        deviation: of the initial entries; match the backbone's text rows.
    """

    digits: Tensor

    def __init__(
        self, levels: tuple[int, ...], hidden: int, kind: Literal["digits", "opaque"], deviation: float = 0.02
    ) -> None:
        super().__init__()
        fsq = FSQ(levels)
        self.kind = kind
        self.special = nn.Parameter(torch.randn(NEW_SPECIALS, hidden) * deviation)
        if kind == "opaque":
            self.code = nn.Parameter(torch.randn(fsq.codes, hidden) * deviation)
        else:
            share = deviation / len(levels) ** 0.5
            self.level = nn.Parameter(torch.randn(sum(levels), hidden) * share)
            first = torch.tensor([sum(levels[:i]) for i in range(len(levels))])
            self.register_buffer("digits", fsq.index_to_digits(torch.arange(fsq.codes)) + first, persistent=False)

    def forward(self) -> Tensor:
        code = self.code if self.kind == "opaque" else self.level[self.digits].sum(1)
        return torch.cat([self.special, code])

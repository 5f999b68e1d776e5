"""Finite scalar quantisation (Mentzer et al., ICLR 2024, arXiv 2309.15505): a codebook without a codebook.

Each of D dimensions is bounded and rounded to one of L levels; a code is the mixed-radix number of its D digits, least
significant first, `index = sum_i digit_i * prod_{j<i} L_j`. HeartLLM uses D = 4, L = 6: 1,296 codes.

Two bounding functions are offered. `tanh` is the canonical one (the published text prints `tan`, which its author
calls a mistake). `sigmoid` is the form in HeartLLM's released code, `round(5 sigmoid(z)) / 5`: symmetric, at half the
slope.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn


class FSQ(nn.Module):
    """Quantises (..., D) real vectors to one of prod(levels) codes, with straight-through gradients.

    Args:
        levels: number of levels of each dimension.
        form: bounding function, see the module's text.
    """

    def __init__(self, levels: tuple[int, ...] = (6, 6, 6, 6), form: Literal["tanh", "sigmoid"] = "tanh") -> None:
        super().__init__()
        self.levels, self.form = levels, form
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.int64), persistent=False)
        radix = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("_radix", torch.tensor(radix, dtype=torch.int64), persistent=False)

    @property
    def codes(self) -> int:
        """Size of the implicit codebook."""
        return math.prod(self.levels)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> quantised values (..., D), what a decoder reads, and indices (...) int64."""
        digits = self._continuous_digits(z.float())
        rounded = digits.round()
        digits = digits + (rounded - digits).detach()  # straight-through: the gradient of the identity
        return self._digits_to_values(digits), self.digits_to_index(rounded.detach())

    def values(self, index: Tensor) -> Tensor:
        """Indices (...) -> quantised values (..., D) float32: the exact inverse of `forward`'s second result."""
        return self._digits_to_values(self.index_to_digits(index).float())

    def index_to_digits(self, index: Tensor) -> Tensor:
        """Indices (...) -> digits (..., D) int64, each in [0, L_i)."""
        return (index.long().unsqueeze(-1) // self._radix) % self._levels

    def digits_to_index(self, digits: Tensor) -> Tensor:
        """Digits (..., D) -> indices (...) int64. Computed in integers: a half-precision sum would merge codes."""
        return (digits.round().long() * self._radix).sum(-1)

    def _continuous_digits(self, z: Tensor) -> Tensor:
        """(..., D) -> bounded real digits; rounding them gives integers in [0, L_i)."""
        top = (self._levels - 1).float()
        if self.form == "sigmoid":
            return top * torch.sigmoid(z)
        half = top * (1 + 1e-3) / 2
        offset = torch.where(self._levels % 2 == 0, 0.5, 0.0)
        bounded = half * torch.tanh(z + torch.atanh(offset / half)) - offset
        return bounded + torch.div(self._levels, 2, rounding_mode="floor")

    def _digits_to_values(self, digits: Tensor) -> Tensor:
        if self.form == "sigmoid":
            return digits / (self._levels - 1)
        half_width = torch.div(self._levels, 2, rounding_mode="floor")
        return (digits - half_width) / half_width

"""The linear projector between stored values and a language model: the plainest soft tokens."""

from __future__ import annotations

from torch import Tensor, nn


class LinearInput(nn.Module):
    """One linear layer, at the scale of the text rows.

    The scale follows the table (the root mean square of its rows, without gradient): a table that starts from nothing
    has deviation 0.02, a trained one is tens of times larger, and soft tokens of another size than words would start
    out drowned or drowning.
    """

    def __init__(self, width: int, hidden: int, *, identity: bool = False) -> None:
        """`identity`: start as the identity where widths agree, for values that were aligned with the text rows."""
        super().__init__()
        self.linear = nn.Linear(width, hidden)
        nn.init.zeros_(self.linear.bias)
        if identity and width == hidden:
            nn.init.eye_(self.linear.weight)
        else:
            nn.init.normal_(self.linear.weight, std=width**-0.5)

    def forward(self, values: Tensor, text_rows: Tensor) -> Tensor:
        """Values (B, N, width) of about unit size and text rows (V, hidden) -> (B, N, hidden)."""
        scale = text_rows.detach().float().square().mean().sqrt()
        return self.linear(values.to(self.linear.weight.dtype)) * scale

"""From millivolts to what a network of a front-end sees, the same for all that learn from the waveform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heartllm.codec.networks import LEAD_COUNT


class LeadScaling(nn.Module):
    """asinh(clipped mV / the lead's deviation): HeartLLM's own "companded" scale, so that no system sees more.

    `deviation` (12,) holds the leads' deviations over the training set in mV; it is set before training.
    """

    deviation: Tensor

    def __init__(self, clip: float = 5.0) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("deviation", torch.full((LEAD_COUNT,), 0.2))

    def forward(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV -> (B, 12, T)."""
        return torch.asinh(signal.clamp(-self.clip, self.clip) / self.deviation[:, None])

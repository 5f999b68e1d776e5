"""Encoders and decoders between (B, 12, T) signals and (B, N, D) latents, N = ceil(T / 16).

`Plain*` is the default and ours; `Paper*` follows HeartLLM's figure and released code. Both encode lead by lead and mix
leads only at the end, so that a code describes 32 ms of all twelve leads at 500 Hz.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

STRIDE = 16  # samples a code: 32 ms at 500 Hz
LEAD_COUNT = 12


class PlainEncoder(nn.Module):
    """Strided convolutions with bias, weights shared over leads, and no normalisation anywhere.

    GroupNorm over time and bias-free convolutions cancel the gain of their input, and with it every voltage criterion;
    this encoder sees amplitude, and only the 89 samples (178 ms) centred on sample 16 n for code n.
    """

    def __init__(self, latent: int, width: int = 32, mix: int = 256) -> None:
        super().__init__()
        self.lead = nn.Sequential(
            nn.Conv1d(1, width // 2, 9, stride=4, padding=4),
            nn.GELU(),
            nn.Conv1d(width // 2, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.GELU(),
        )
        self.mix = nn.Sequential(
            nn.Conv1d(LEAD_COUNT * width, mix, 1), nn.GELU(), nn.Conv1d(mix, mix, 3, padding=1), nn.GELU()
        )
        self.to_latent = nn.Conv1d(mix, latent, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 12, T) -> (B, N, D)."""
        batch, leads, samples = x.shape
        h = self.lead(x.reshape(batch * leads, 1, samples))  # (B * 12, width, N)
        h = self.mix(h.reshape(batch, leads * h.shape[1], h.shape[2]))  # (B, mix, N)
        return self.to_latent(h).transpose(1, 2)


class ResidualConv(nn.Module):
    """x + conv(gelu(conv(x))) on (B, C, N)."""

    def __init__(self, width: int, kernel: int = 5) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, kernel, padding=kernel // 2), nn.GELU(), nn.Conv1d(width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class PlainDecoder(nn.Module):
    """Residual convolutions at code rate, then two transposed convolutions of stride 4 to sample rate."""

    def __init__(self, latent: int, width: int = 192) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(latent, width, 3, padding=1),
            nn.GELU(),
            ResidualConv(width),
            ResidualConv(width),
            ResidualConv(width),
            nn.ConvTranspose1d(width, width // 2, 8, stride=4, padding=2),
            nn.GELU(),
            ResidualConv(width // 2),
            nn.ConvTranspose1d(width // 2, width // 4, 8, stride=4, padding=2),
            nn.GELU(),
            nn.Conv1d(width // 4, LEAD_COUNT, 7, padding=3),
        )

    def forward(self, values: Tensor) -> Tensor:
        """(B, N, D) -> (B, 12, 16 N)."""
        return self.body(values.transpose(1, 2))


class Inception(nn.Module):
    """HeartLLM's residual inception block on (B, in, N): kernels 3, 5, 7 and a pooled 1, then GroupNorm and LeakyReLU.

    Attributes are named as in the authors' checkpoints (`inc.b1` ... `match`, `norm`): their weights load as they are.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        part = channels // 4
        self.inc = nn.ModuleDict(
            {
                "b1": nn.Conv1d(channels_in, part, 3, padding=1, bias=False),
                "b2": nn.Conv1d(channels_in, part, 5, padding=2, bias=False),
                "b3": nn.Conv1d(channels_in, part, 7, padding=3, bias=False),
                "b4": nn.Conv1d(channels_in, part, 1, bias=False),
            }
        )
        self.pool = nn.MaxPool1d(3, stride=1, padding=1)
        self.match = nn.Conv1d(channels_in, channels, 1, bias=False) if channels_in != channels else None
        self.norm = nn.GroupNorm(8, channels)
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.inc[name](x) for name in ("b1", "b2", "b3")] + [self.inc["b4"](self.pool(x))]
        skip = x if self.match is None else self.match(x)
        return self.act(self.norm(torch.cat(branches, 1) + skip))


class PaperLeadEncoder(nn.Module):
    """(B, 1, T) -> (B, 32, N): four times [inception block, stride-2 convolution], then one more inception block."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    Inception(1 if i == 0 else channels, channels),
                    nn.Conv1d(channels, channels, 3, stride=2, padding=1, bias=False),
                ]
            )
            for i in range(4)
        )
        self.bottleneck = Inception(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        for inception, down in self.blocks:
            x = down(inception(x))
        return self.bottleneck(x)


class PaperEncoder(nn.Module):
    """HeartLLM's lead-wise encoder: `shared` weights as in the released code, `separate` as in the paper's figure."""

    def __init__(self, latent: int, lead_weights: Literal["shared", "separate"] = "shared") -> None:
        super().__init__()
        count = 1 if lead_weights == "shared" else LEAD_COUNT
        self.leads = nn.ModuleList(PaperLeadEncoder() for _ in range(count))
        self.to_code = nn.Linear(LEAD_COUNT * 32, latent)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 12, T) -> (B, N, D)."""
        batch, leads, samples = x.shape
        if len(self.leads) == 1:
            h = self.leads[0](x.reshape(batch * leads, 1, samples))
            h = h.reshape(batch, leads * h.shape[1], h.shape[2])
        else:
            h = torch.cat([encoder(x[:, i : i + 1]) for i, encoder in enumerate(self.leads)], dim=1)
        return self.to_code(h.transpose(1, 2))


class PaperDecoder(nn.Module):
    """HeartLLM's decoder: four times [stride-2 transposed convolution, inception block] at full width."""

    def __init__(self, latent: int, width: int = 384) -> None:
        super().__init__()
        self.expand = nn.Linear(latent, width)
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(width, width, 3, stride=2, padding=1, output_padding=1) for _ in range(4)
        )
        self.dec = nn.ModuleList(Inception(width, width) for _ in range(4))
        self.final = nn.Conv1d(width, LEAD_COUNT, 1)

    def forward(self, values: Tensor) -> Tensor:
        """(B, N, D) -> (B, 12, 16 N)."""
        h = self.expand(values).transpose(1, 2)
        for up, block in zip(self.up, self.dec, strict=True):
            h = block(up(h))
        return self.final(h)

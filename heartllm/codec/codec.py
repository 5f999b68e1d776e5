"""The ECG codec: millivolts -> 313 codes for 10 s -> millivolts.

    signal (B, 12, T) mV -> scale -> encoder -> (B, N, D) -> FSQ -> index (B, N) -> decoder -> unscale -> (B, 12, T) mV

It always runs in float32 with int64 indices: in bfloat16 about 5 % of codes change, and a bfloat16 mixed-radix sum can
name only 547 of the 1,296 codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from heartllm.codec.fsq import FSQ
from heartllm.codec.networks import LEAD_COUNT, STRIDE, PaperDecoder, PaperEncoder, PlainDecoder, PlainEncoder
from heartllm.errors import DataError

# Recordings that a CPU encodes at once: the activations of several go back to the system after each layer and are
# fetched from it again, page by page, which takes up to twice the time.
CPU_GROUP = 1


@dataclass(frozen=True)
class CodecConfig:
    """What a codec is made of.

    Attributes:
        network: "plain" (ours: amplitude kept, no normalisation over the record) or "paper" (inception blocks and
            GroupNorm).
        scale: how millivolts become network input. "millivolt": clipped at +-`clip` mV and divided by fixed deviations
            of each lead over the training set. "companded": the same, then asinh, so that P waves and R peaks are
            quantised with like relative error. "zscore": each lead of each record to mean 0, deviation 1 (the
            authors' way; erases amplitude).
        lead_weights: "shared" or "separate" lead encoders (`paper` only).
        fsq: bounding function, see `heartllm.codec.fsq`.
        levels: FSQ levels of each dimension; their product is the number of codes.
        decoder_width: channels of the decoder at code rate.
        clip: millivolts.
    """

    network: Literal["plain", "paper"] = "plain"
    scale: Literal["millivolt", "companded", "zscore"] = "companded"
    lead_weights: Literal["shared", "separate"] = "shared"
    fsq: Literal["tanh", "sigmoid"] = "tanh"
    levels: tuple[int, ...] = (6, 6, 6, 6)
    decoder_width: int = 192
    clip: float = 5.0

    def __post_init__(self) -> None:
        if self.lead_weights == "separate" and self.network != "paper":
            raise ValueError('lead_weights = "separate" belongs to network = "paper"')
        if not self.levels or min(self.levels) < 2:
            raise ValueError("levels needs at least one number, each 2 or more")
        if self.decoder_width < 4 or (self.network == "paper" and self.decoder_width % 8):
            raise ValueError('decoder_width is 4 or more, with network = "paper" a multiple of 8')


class Codec(nn.Module):
    """Encoder, quantiser and decoder.

    `lead_scale` (12,) holds the leads' deviations over the training set in mV; it is set before training.

    Args:
        latent: numbers between encoder and decoder, where they are not those of the quantiser's digits.
    """

    lead_scale: Tensor

    def __init__(self, config: CodecConfig, latent: int | None = None) -> None:
        super().__init__()
        self.config = config
        latent = latent or len(config.levels)
        self.fsq = FSQ(config.levels, config.fsq)
        if config.network == "plain":
            self.encoder: nn.Module = PlainEncoder(latent)
            self.decoder: nn.Module = PlainDecoder(latent, config.decoder_width)
        else:
            self.encoder = PaperEncoder(latent, config.lead_weights)
            self.decoder = PaperDecoder(latent, config.decoder_width)
        self.register_buffer("lead_scale", torch.full((LEAD_COUNT,), 0.2))

    @property
    def codes(self) -> int:
        return self.fsq.codes

    def to_network(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 12, T) mV -> network input (B, 12, T), and (B, 12, 2) the mean and deviation that z-scoring took away."""
        if self.config.scale == "zscore":
            mean, deviation = signal.mean(-1, keepdim=True), signal.std(-1, keepdim=True, correction=0).clamp_min(1e-4)
            return (signal - mean) / deviation, torch.cat([mean, deviation], -1)
        scaled = signal.clamp(-self.config.clip, self.config.clip) / self.lead_scale[:, None]
        none = signal.new_zeros(*signal.shape[:2], 2)
        return (torch.asinh(scaled) if self.config.scale == "companded" else scaled), none

    def to_millivolt(self, output: Tensor, moments: Tensor | None = None) -> Tensor:
        """Network output (B, 12, T) -> mV.

        A z-scored codec needs the record's `moments` (B, 12, 2); without them its output has unit deviation.
        """
        if self.config.scale == "zscore":
            return output if moments is None else output * moments[..., 1:] + moments[..., :1]
        limit = torch.asinh(self.config.clip / self.lead_scale)[:, None]
        scaled = torch.sinh(output.clamp(-limit, limit)) if self.config.scale == "companded" else output
        return scaled * self.lead_scale[:, None]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Network input (B, 12, T) -> its reconstruction (B, 12, T) and indices (B, N) int64."""
        values, index = self.fsq(self.encoder(x))
        return self.decoder(values)[..., : x.shape[-1]], index

    @torch.no_grad()
    def encode(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV at 500 Hz -> (B, ceil(T / 16)) int64 indices.

        Raises:
            DataError: if the signal holds NaN or infinity, which would otherwise become arbitrary codes.
        """
        check_finite(signal)
        groups = signal.split(CPU_GROUP) if signal.device.type == "cpu" and len(signal) else (signal,)
        with torch.autocast(signal.device.type, enabled=False):
            return torch.cat([self.fsq(self.encoder(self.to_network(group.float())[0]))[1] for group in groups])

    @torch.no_grad()
    def decode(self, index: Tensor, samples: int | None = None) -> Tensor:
        """(B, N) indices -> (B, 12, samples or 16 N) mV.

        A z-scored codec kept no amplitude: its output has mean 0 and deviation 1.
        """
        with torch.autocast(self.lead_scale.device.type, enabled=False):
            return self.to_millivolt(self.decoder(self.fsq.values(index)))[..., :samples]


def check_finite(signal: Tensor) -> None:
    """Raises a DataError for a signal with NaN or infinity, which would otherwise become arbitrary codes."""
    # Both ends are NaN where any sample is. Asking every sample costs twenty times as much.
    if signal.numel() and not torch.isfinite(torch.stack(torch.aminmax(signal))).all():
        raise DataError(
            "the signal holds NaN or infinite samples",
            remedy="Read it with a NaN policy (interpolate) or leave it out.",
        )


def code_count(samples: int) -> int:
    """Number of codes for `samples` samples at 500 Hz."""
    return math.ceil(samples / STRIDE)

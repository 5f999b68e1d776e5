"""`continuous` (the paper's ablation w/o DISC): our encoder's features through a linear projector, with no quantisation
and no ECG vocabulary.

The encoder is the codec's own network, trained as an autoencoder in the same way, for the same steps and on the same
crops as the codec, but with nothing rounded between encoder and decoder. That is the whole of what the ablation takes
away. Features of a codec that was trained *with* rounding would have been shaped by what is to be left out.

    signal (B, 12, T) mV -> scale -> encoder -> (B, N, width) -> [frozen, stored] -> linear -> (B, N, hidden)

`width` is free once nothing is counted: 4, as wide as a code's digits, tells what rounding alone costs or gives; the
default of 64 is a soft-token front-end as it would be built.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from heartllm.codec.codec import Codec, CodecConfig, check_finite, code_count
from heartllm.frontends.base import SAMPLES, FrontEnd
from heartllm.frontends.soft import LinearInput


@dataclass(frozen=True)
class ContinuousConfig:
    """Settings.

    Attributes:
        codec: networks and scale of the encoder; its quantiser and levels are not used.
        width: features a position.
    """

    codec: CodecConfig = field(default_factory=CodecConfig)
    width: int = 64

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError("width is 1 or more")


class Continuous(FrontEnd):
    """The codec's encoder (and, for its training, decoder) about a bottleneck of `width` real numbers.

    `centre` and `spread` (width,) are the features' mean and deviation over training recordings; `encode` takes them
    out, so that 16 bits hold its values well and the projector starts at the scale of the text rows.
    """

    centre: Tensor
    spread: Tensor

    kind: ClassVar[str] = "continuous"
    config_type: ClassVar[type[Any]] = ContinuousConfig
    codes = None
    positions = code_count(SAMPLES)

    def __init__(self, config: ContinuousConfig) -> None:
        super().__init__()
        self.config, self.width = config, config.width
        self.codec = Codec(config.codec, latent=config.width)
        self.register_buffer("centre", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(config.width))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Network input (B, 12, T) -> its reconstruction (B, 12, T), and no codes."""
        return self.codec.decoder(self.codec.encoder(x))[..., : x.shape[-1]], None

    @torch.no_grad()
    def standardise(self, signals: Iterable[Tensor]) -> None:
        """Sets `centre` and `spread` from batches (B, 12, T) of recordings in mV."""
        self.centre.zero_()
        self.spread.fill_(1.0)
        features = torch.cat([self.encode(signal).flatten(0, 1) for signal in signals])
        self.centre.copy_(features.mean(0))
        self.spread.copy_(features.std(0, correction=0).clamp_min(1e-3))

    @torch.no_grad()
    def encode(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV at 500 Hz -> (B, ceil(T / 16), width) float32 of about mean 0 and deviation 1."""
        check_finite(signal)
        with torch.autocast(signal.device.type, enabled=False):
            features = self.codec.encoder(self.codec.to_network(signal.float())[0])
            return (features - self.centre) / self.spread

    def soft_input(self, hidden: int) -> nn.Module:
        """The linear projector."""
        return LinearInput(self.config.width, hidden)

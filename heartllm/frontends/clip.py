"""CLIP-style alignment of ECGs with reports, as in MERL (Liu et al., "Zero-Shot ECG Classification with Multimodal
Learning and Test-time Clinical Knowledge Enhancement", ICML 2024). Its training is `heartllm.training.clip`.

What defines it, and is here: a 1-D ResNet over the 12 leads (stem of stride 2, four stages of basic blocks with
BatchNorm, strides 1, 2, 2, 2, hence 313 positions for 5,000 samples), a pointwise convolution to 256, attention pooling
with a class token and learned positions, and opposite it a frozen text encoder with a two-layer head to 256. The
language model is given the feature map before pooling, through a linear projector: 313 positions of 32 ms, which is
MERL's own count and every other system's.

Departures:

- A quarter of ResNet-18's channels (16, 32, 64, 128), for one core.
- The text encoder is the text side of the language model that all systems share (`TextSide`, mean-pooled last states),
  not a biomedical BERT, and its features are standardised over the training reports.
- Input is companded millivolts (`heartllm.frontends.scaling`); MERL rescales each record to [0, 1], which erases
  amplitude.
- The language model sees the map before the pointwise convolution, standardised by channel: two fixed linear maps less,
  with which the projector can do whatever it could do with them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.codec.codec import check_finite
from heartllm.codec.networks import LEAD_COUNT, STRIDE
from heartllm.errors import CheckpointError, DataError
from heartllm.frontends.base import SAMPLES, FrontEnd
from heartllm.frontends.scaling import LeadScaling
from heartllm.frontends.soft import LinearInput

STAGES = 4


@dataclass(frozen=True)
class ClipConfig:
    """What it is made of, and how it trains.

    Attributes:
        channels: of the stem and the first stage; each further stage has twice as many (ResNet-18: 64).
        blocks: basic blocks a stage (ResNet-18: 2).
        embedding: width of the joint space.
        heads: of the attention pooling.
        text_width: width of the text side.
        temperature: of InfoNCE.
        uni_modal: weight of MERL's second term, the contrast of two dropout views of the same ECG; 0 is plain CLIP.
        dropout: of those two views.
    """

    channels: int = 16
    blocks: int = 2
    embedding: int = 256
    heads: int = 4
    text_width: int = 128
    temperature: float = 0.07
    uni_modal: float = 0.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("channels", "blocks", "embedding", "heads", "text_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        if self.embedding % self.heads:
            raise ValueError("embedding is a multiple of heads")
        if self.temperature <= 0 or self.uni_modal < 0 or not 0 <= self.dropout < 1:
            raise ValueError("temperature is above 0, uni_modal not negative, dropout in [0, 1)")


class BasicBlock(nn.Module):
    """relu(x + BN(conv(relu(BN(conv(x)))))) on (B, C, T), the skip through a pointwise convolution where C changes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels_in, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm1d(channels),
        )
        same = stride == 1 and channels_in == channels
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv1d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm1d(channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    """(B, 12, T) -> (B, 8 * channels, ceil(T / 16))."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv1d(LEAD_COUNT, channels, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
        ]
        before = channels
        for stage in range(STAGES):
            wide = channels * 2**stage
            for block in range(blocks):
                layers.append(BasicBlock(before, wide, 2 if stage and not block else 1))
                before = wide
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class AttentionPool(nn.Module):
    """A class token asks all positions: (B, N, D) -> (B, D)."""

    def __init__(self, positions: int, width: int, heads: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(1, positions + 1, width) / width)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """At most `positions` positions."""
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place[:, : x.shape[1] + 1]
        pooled, _ = self.attention(x[:, :1], x, x, need_weights=False)
        return self.out(pooled[:, 0])


class Clip(FrontEnd):
    """ECG encoder, and the head of the text encoder it was aligned with.

    Buffers: `centre`, `spread` (width,) standardise the feature map, `text_centre`, `text_spread` (text_width,) the
    text features; all four are measured on the training set. `text_mark` is of the text side's fingerprint.
    """

    kind: ClassVar[str] = "clip"
    config_type: ClassVar[type] = ClipConfig
    codes = None
    centre: Tensor
    spread: Tensor
    text_centre: Tensor
    text_spread: Tensor
    text_mark: Tensor

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.channels * 2 ** (STAGES - 1)
        self.positions = -(-SAMPLES // STRIDE)
        self.scaling = LeadScaling()
        self.network = ResNet(config.channels, config.blocks)
        self.reduce = nn.Conv1d(self.width, config.embedding, 1)
        self.pool = AttentionPool(self.positions, config.embedding, config.heads)
        self.text_head = nn.Sequential(
            nn.Linear(config.text_width, config.embedding),
            nn.GELU(),
            nn.Linear(config.embedding, config.embedding),
        )
        for name, length in (("", self.width), ("text_", config.text_width)):
            self.register_buffer(f"{name}centre", torch.zeros(length))
            self.register_buffer(f"{name}spread", torch.ones(length))
        self.register_buffer("text_mark", torch.zeros((), dtype=torch.int64))

    def feature_map(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV -> (B, width, ceil(T / 16)), with gradients."""
        return self.network(self.scaling(signal))

    def project(self, features: Tensor) -> Tensor:
        """Feature map (B, width, N) -> (B, embedding) of norm 1."""
        return F.normalize(self.pool(self.reduce(features).transpose(1, 2)), dim=-1)

    def embed_text(self, features: Tensor) -> Tensor:
        """Text features (n, text_width), as `TextSide.embed` gives them -> (n, embedding) of norm 1.

        Raises:
            DataError: if the features are of another width.
        """
        if features.shape[-1] != self.config.text_width:
            raise DataError(
                f"text features of width {features.shape[-1]}; this encoder was aligned with {self.config.text_width}",
                remedy="Take the text side that it was trained with.",
            )
        return F.normalize(self.text_head((features.float() - self.text_centre) / self.text_spread), dim=-1)

    def mark_text(self, fingerprint: str) -> None:
        """Remembers the text side that it is aligned with."""
        self.text_mark.fill_(_mark(fingerprint))

    def check_text(self, fingerprint: str) -> None:
        """Raises a CheckpointError for a text side other than the one it was aligned with: nonsense of good shape."""
        if int(self.text_mark) != _mark(fingerprint):
            raise CheckpointError(
                "is not the text side that this encoder was aligned with",
                remedy="Name the checkpoint that was given with --text when it was trained.",
            )

    @torch.no_grad()
    def embed(self, signal: Tensor) -> Tensor:
        """(B, 12, T <= 5000) mV at 500 Hz -> (B, embedding) of norm 1; its product with `embed_text` is the cosine.

        Raises:
            DataError: if the signal holds NaN or infinity.
        """
        check_finite(signal)
        with torch.autocast(signal.device.type, enabled=False):
            return self.project(self.feature_map(signal.float()))

    @torch.no_grad()
    def encode(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV at 500 Hz -> (B, ceil(T / 16), width) float32: the feature map before pooling, standardised.

        Raises:
            DataError: if the signal holds NaN or infinity.
        """
        check_finite(signal)
        with torch.autocast(signal.device.type, enabled=False):
            features = self.feature_map(signal.float()).transpose(1, 2)
            return (features - self.centre) / self.spread

    def soft_input(self, hidden: int) -> nn.Module:
        return LinearInput(self.width or 0, hidden)


def _mark(fingerprint: str) -> int:
    """A 63-bit number of a text."""
    return int.from_bytes(hashlib.sha256(fingerprint.encode()).digest()[:8], "big") >> 1

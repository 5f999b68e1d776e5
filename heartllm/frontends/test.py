"""TEST (Sun et al., "TEST: Text Prototype Aligned Embedding to Activate LLM's Ability for Time Series", ICLR 2024,
arXiv 2308.08241): the encoder f_e. Its contrastive training is `heartllm.training.test`.

What defines it, and is here: a recording is cut into sub-windows (Definition 1), each embedded by itself by a causal,
dilated convolutional network (section 4: blocks of GELU, dilated convolution, BatchNorm, GELU, dilated convolution with
a skip connection, dilation 2^i in block i), to the width of the language model's own rows, so that the embedding is a
soft token of it.

Departures, each of them for one footing with the other systems, or for size:

- Five blocks, not ten: they see 125 samples, and a window has 64. Ten would see 4,093.
- Windows slide by 16 samples (32 ms), so that a recording takes 313 positions like every other system, and reach back
  over 64 (128 ms), so that a window holds a wave; HeartLLM's own encoder sees 178 ms a code. Definition 1's windows do
  not overlap: `window = 16` gives that.
- A multivariate window is one token of all leads (as in the paper's definition; its forecasting experiments go channel
  by channel).
- The last block is a pointwise convolution, then the maximum over the window's time and a linear layer, as in the
  released code, with the paper's output width.
- Input is companded millivolts (`heartllm.frontends.scaling`), not a series of its own mean 0 and deviation 1.
- The embedding enters through one more linear layer that starts as the identity and trains with the language model,
  which is not frozen; the learned prompt p_e (Equation 4) falls away with that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.codec.codec import check_finite
from heartllm.codec.networks import LEAD_COUNT
from heartllm.frontends.base import SAMPLES, FrontEnd
from heartllm.frontends.scaling import LeadScaling
from heartllm.frontends.soft import LinearInput


@dataclass(frozen=True)
class TESTConfig:
    """What it is made of, and how it trains.

    Attributes:
        width: M, numbers an embedding; the text side's width, where text prototypes are used.
        window: samples of a sub-window.
        stride: samples between windows; a window ends with its stride.
        channels: of the hidden blocks (40 in the released code).
        layers: blocks; block i has dilation 2^i.
        kernel: samples a convolution.
        objective: "contrast": Equations 1 to 3. "triplet": the released code's loss over sub-crops, without text.
        windows: sub-windows drawn from each recording of a batch.
        temperature: tau of Equation 1.
        prototypes: P, text prototypes (10 in the released code).
        instance, feature, text: weights of Equations 1, 2 and 3; `text = 0` needs no text side.
        jitter: deviation of the noise of both augmentations, in the network's input scale.
        scale: deviation of the weak augmentation's gain about 1.
        segments: the most pieces that the strong augmentation cuts and shuffles.
        negatives: negatives an anchor ("triplet").
    """

    width: int = 128
    window: int = 64
    stride: int = 16
    channels: int = 40
    layers: int = 5
    kernel: int = 3
    objective: Literal["contrast", "triplet"] = "contrast"
    windows: int = 8
    temperature: float = 0.1
    prototypes: int = 10
    instance: float = 1.0
    feature: float = 1.0
    text: float = 1.0
    jitter: float = 0.1
    scale: float = 0.1
    segments: int = 4
    negatives: int = 10

    def __post_init__(self) -> None:
        for name in ("width", "stride", "channels", "layers", "windows", "prototypes", "negatives"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        if self.kernel < 2 or self.segments < 2:
            raise ValueError("kernel and segments are at least 2")
        if not self.stride <= self.window <= SAMPLES:
            raise ValueError(f"window lies between stride and {SAMPLES}")
        if self.temperature <= 0:
            raise ValueError("temperature is above 0")
        if min(self.instance, self.feature, self.text, self.jitter, self.scale) < 0:
            raise ValueError("weights and deviations are not negative")


class CausalBlock(nn.Module):
    """Two dilated convolutions that see the present and the past only, beside a skip connection; (B, C, T)."""

    def __init__(self, channels_in: int, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.past = (kernel - 1) * dilation
        self.first = nn.Conv1d(channels_in, channels, kernel, dilation=dilation)
        self.norm = nn.BatchNorm1d(channels)
        self.second = nn.Conv1d(channels, channels, kernel, dilation=dilation)
        self.skip = nn.Conv1d(channels_in, channels, 1) if channels_in != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(F.pad(F.gelu(x), (self.past, 0))))
        return self.skip(x) + self.second(F.pad(F.gelu(h), (self.past, 0)))


class TEST(FrontEnd):
    """Sub-windows -> embeddings aligned with text rows.

    `size` holds the root mean square of the embeddings over the training set; `encode` divides by it.
    """

    kind: ClassVar[str] = "test"
    config_type: ClassVar[type] = TESTConfig
    codes = None
    size: Tensor

    def __init__(self, config: TESTConfig) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.positions = math.ceil(SAMPLES / config.stride)
        self.scaling = LeadScaling()
        blocks = [
            CausalBlock(LEAD_COUNT if i == 0 else config.channels, config.channels, config.kernel, 2**i)
            for i in range(config.layers)
        ]
        self.causal = nn.Sequential(*blocks, nn.Conv1d(config.channels, config.width, 1))
        self.out = nn.Linear(config.width, config.width)
        self.register_buffer("size", torch.ones(()))

    def embed_windows(self, windows: Tensor) -> Tensor:
        """f_e: scaled sub-windows (B, 12, t) of any length -> (B, width)."""
        return self.out(self.causal(windows).amax(-1))

    @torch.no_grad()
    def encode(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV at 500 Hz -> (B, ceil(T / stride), width) float32, of mean square 1 over the training set.

        Position n sees the `window` samples that end with sample stride * (n + 1) - 1; before the beginning the first
        sample is repeated.

        Raises:
            DataError: if the signal holds NaN or infinity.
        """
        check_finite(signal)
        stride, window = self.config.stride, self.config.window
        with torch.autocast(signal.device.type, enabled=False):
            x = self.scaling(signal.float())
            x = F.pad(x, (window - stride, -x.shape[-1] % stride), mode="replicate")
            pieces = x.unfold(-1, window, stride).transpose(1, 2)  # (B, N, 12, window)
            # A recording at a time: the hidden blocks of one already take 313 x 40 x 64 numbers.
            return torch.stack([self.embed_windows(one) for one in pieces]) / self.size

    def soft_input(self, hidden: int) -> nn.Module:
        return LinearInput(self.config.width, hidden, identity=True)

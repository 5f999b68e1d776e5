"""Time-LLM (Jin et al., ICLR 2024, arXiv 2310.01728): patches of the waveform in the words of a language model.

What defines it, and is here: instance normalisation (section 3.1, RevIN without its affine part, which the linear
layer behind it contains); overlapping patches of 16 samples at stride 8 through one linear layer; *patch
reprogramming*, a multi-head cross-attention from patches to "text prototypes" E' = W E, learned mixtures of the
language model's rows E, with keys and values from E' alone, so that nothing of the signal goes past the prototypes; and
*prompt as prefix*, statistics of the input as text. It has no pretraining of its own.

Departures, each of them for one footing with the other systems:

- Channels. The paper sends every channel through the language model by itself, which would cost twelve times the
  context and could not relate leads. A patch here holds the same 64 ms of all leads, so that a recording takes 313
  positions like every other system; the text prefix describes each lead.
- The language model is not frozen: it trains as it does for every other system (a small one starts from nothing).
- Prototypes are normalised (LayerNorm) before keys and values. A table that starts from nothing is noise of deviation
  0.02, under which all attention would begin, and stay for long, as a plain mean. For the same reason soft tokens have
  the scale of the table (root mean square of its rows), as every other system's have.
- Statistics stand as text between the patient's features and the ECG. They are those of the signal in mV; the released
  code takes them after normalisation, where they say little, and counts lag 0 among the top lags. Lags here are peaks
  of the autocorrelation beyond 0.2 s.
- The head that forecasts values falls away: the language model answers in text.

Pitfall: W is prototypes x vocabulary, 128 million weights for 1,000 prototypes of a vocabulary of 128,000. `rows` caps
it: of a larger table that many rows, evenly spaced, are mixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.codec.codec import check_finite
from heartllm.ecg.recording import LEADS, SAMPLING_RATE
from heartllm.ecg.resampling import resample
from heartllm.frontends.base import SAMPLES, FrontEnd

LEAST_LAG = 0.2  # s; nearer lags belong to the width of the waves


@dataclass(frozen=True)
class TimeLLMConfig:
    """What it is made of.

    Attributes:
        rate: Hz of the patches' samples; the signal is resampled to it.
        stride: samples between patches; 8 at 250 Hz is 32 ms.
        overlap: strides a patch spans; 2 gives the paper's patches of 16 samples.
        normalise: "instance": each lead of each recording to mean 0, deviation 1, as in the paper (erases amplitude,
            which then only the statistics tell). "fixed": each lead by its deviation over the training set.
        embedding: width of an embedded patch.
        heads, head_width: of the cross-attention.
        prototypes: V'; 100 and 1,000 in the paper.
        rows: text rows that are mixed at most, see the module's text.
        dropout: on attention weights.
        statistics: the text prefix: of every lead, of the "record" as a whole, or "none".
        lags: how many top lags it names.
    """

    rate: float = 250.0
    stride: int = 8
    overlap: int = 2
    normalise: Literal["instance", "fixed"] = "instance"
    embedding: int = 128
    heads: int = 8
    head_width: int = 32
    prototypes: int = 100
    rows: int = 1024
    dropout: float = 0.1
    statistics: Literal["leads", "record", "none"] = "leads"
    lags: int = 5

    def __post_init__(self) -> None:
        counts = ("stride", "overlap", "embedding", "heads", "head_width", "prototypes", "rows")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        if not 0 < self.rate <= SAMPLING_RATE:
            raise ValueError(f"rate lies between 0 and {SAMPLING_RATE:g} Hz")
        if not 0 <= self.dropout < 1 or self.lags < 0:
            raise ValueError("dropout lies in [0, 1) and lags is not negative")


class TimeLLM(FrontEnd):
    """Normalises and cuts; all that is learned is in `Reprogramming`, which trains with the language model.

    `lead_scale` (12,) holds the leads' deviations over the training set in mV, for `normalise = "fixed"`.
    """

    kind: ClassVar[str] = "time_llm"
    config_type: ClassVar[type] = TimeLLMConfig
    config: TimeLLMConfig
    lead_scale: Tensor

    def __init__(self, config: TimeLLMConfig) -> None:
        super().__init__()
        self.config = config
        self.codes = None
        self.width = len(LEADS) * config.stride * config.overlap + 2 * len(LEADS)
        self.positions = math.ceil(math.ceil(SAMPLES * config.rate / SAMPLING_RATE) / config.stride)
        self.register_buffer("lead_scale", torch.full((len(LEADS),), 0.2))

    @torch.no_grad()
    def encode(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV at 500 Hz -> (B, N, 12 * overlap * stride + 24) float32: patches, lead after lead.

        Behind the end the last sample is repeated, as the paper pads. The last 24 numbers of a position are each lead's
        mean and deviation in mV, which normalising took away: `describe` needs them, the network does not see them.

        Raises:
            DataError: if the signal holds NaN or infinity.
        """
        check_finite(signal)
        x = signal.float()
        if self.config.normalise == "instance":
            scale = x.std(-1, keepdim=True, correction=0).clamp_min(1e-4)
            mean = x.mean(-1, keepdim=True)
        else:
            scale = self.lead_scale[:, None].expand(len(x), -1, 1)
            mean = torch.zeros_like(scale)
        x = (x - mean) / scale
        batch, leads, _ = x.shape
        slow = resample(x.reshape(batch * leads, -1).cpu().numpy(), SAMPLING_RATE, self.config.rate)
        x = torch.from_numpy(slow).to(signal.device).reshape(batch, leads, -1)
        stride, length = self.config.stride, self.config.stride * self.config.overlap
        x = F.pad(x, (0, -x.shape[-1] % stride + length - stride), mode="replicate")
        patches = x.unfold(-1, length, stride)  # (B, 12, N, length)
        told = torch.cat([mean, scale], 1).transpose(1, 2).expand(-1, patches.shape[2], -1)
        # float16 ends at 65,504: a lead that is flat but for one spike stays below.
        return torch.cat([patches.transpose(1, 2).flatten(2), told], -1).clamp(-1e4, 1e4)

    def soft_input(self, hidden: int) -> nn.Module:
        return Reprogramming(self.config, hidden)

    def describe(self, values: npt.NDArray[Any]) -> str:
        """Stored values (N, width), of all or a part of a recording -> its text prefix."""
        if self.config.statistics == "none":
            return ""
        stride, leads = self.config.stride, len(LEADS)
        patches = np.asarray(values[:, : -2 * leads], np.float64).reshape(len(values), leads, -1)
        signal = patches[:, :, :stride].transpose(1, 0, 2).reshape(leads, -1)
        mean, scale = np.asarray(values[0, -2 * leads :], np.float64).reshape(2, leads, 1)
        return statistics_text(signal * scale + mean, self.config)


class Reprogramming(nn.Module):
    """Patches in, soft tokens out: the paper's equation of section 3.1, "patch reprogramming".

    Z_k = softmax(Q_k K_k^T / sqrt(d_k)) V_k for each head k, with Q = X W_Q from the embedded patches X and K = E' W_K,
    V = E' W_V from the prototypes E' = W E; then the heads together through one linear layer.
    """

    def __init__(self, config: TimeLLMConfig, hidden: int) -> None:
        super().__init__()
        self.config = config
        self.samples = len(LEADS) * config.stride * config.overlap
        inner = config.heads * config.head_width
        self.patch = nn.Linear(self.samples, config.embedding)
        self.mixture = nn.Linear(config.rows, config.prototypes)
        self.norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(config.embedding, inner)
        self.key = nn.Linear(hidden, inner)
        self.value = nn.Linear(hidden, inner)
        self.out = nn.Linear(inner, hidden)
        nn.init.normal_(self.out.weight, std=inner**-0.5)
        nn.init.zeros_(self.out.bias)

    def prototypes(self, text_rows: Tensor) -> Tensor:
        """(V, hidden) rows -> (V', hidden) text prototypes. The rows themselves get no gradient, as in the paper."""
        rows = text_rows.detach().to(self.mixture.weight.dtype)
        if len(rows) > self.config.rows:
            even = torch.linspace(0, len(rows) - 1, self.config.rows, device=rows.device)
            rows = rows[even.round().long()]
        mixed = self.mixture.weight[:, : len(rows)] @ rows + self.mixture.bias[:, None]
        return self.norm(mixed)

    def forward(self, values: Tensor, text_rows: Tensor) -> Tensor:
        """Stored values (B, N, width) and the table's text rows (V, hidden) -> (B, N, hidden), position by position."""
        patches = values[..., : self.samples].to(self.patch.weight.dtype)
        prototypes = self.prototypes(text_rows)

        def heads(states: Tensor) -> Tensor:
            return states.unflatten(-1, (self.config.heads, self.config.head_width)).transpose(-3, -2)

        attended = F.scaled_dot_product_attention(
            heads(self.query(self.patch(patches))),  # (B, H, N, d_k)
            heads(self.key(prototypes)).expand(len(values), -1, -1, -1),  # (B, H, V', d_k)
            heads(self.value(prototypes)).expand(len(values), -1, -1, -1),
            dropout_p=self.config.dropout if self.training else 0.0,
        )
        scale = text_rows.detach().float().square().mean().sqrt()
        return self.out(attended.transpose(1, 2).flatten(2)) * scale


def statistics_text(signal: npt.NDArray[np.float64], config: TimeLLMConfig) -> str:
    """Statistics of (12, T) mV at `config.rate` as one line of text: minimum, maximum, median, trend, top lags."""
    if config.statistics == "leads":
        rows: Sequence[tuple[str, npt.NDArray[np.float64]]] = list(zip(LEADS, signal, strict=True))
    else:
        rows = [("all leads", signal)]
    parts = [f"{name} {_tenths(x.min())} to {_tenths(x.max())}, median {_tenths(np.median(x))}" for name, x in rows]
    edge = min(math.ceil(config.rate), signal.shape[1])
    rise = float((signal[:, -edge:].mean(1) - signal[:, :edge].mean(1)).mean())
    text = f"Input in mV: {'; '.join(parts)}. Trend: {'upward' if rise > 0 else 'downward'}."
    lags = top_lags(signal, config.lags, config.rate)
    return text + (f" Top lags: {', '.join(f'{lag * 1000:.0f}' for lag in lags)} ms." if lags else "")


def top_lags(signal: npt.NDArray[np.float64], most: int, rate: float) -> list[float]:
    """Seconds of the highest peaks of the autocorrelation of (12, T) at `rate`, summed over leads, highest first.

    By FFT as in the paper's appendix, but zero-padded, so that the end does not correlate with the beginning.
    """
    centred = signal - signal.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(centred, 2 * signal.shape[1], axis=1)) ** 2
    correlation = np.fft.irfft(power.sum(0))[: signal.shape[1] // 2]
    inner = correlation[1:-1]
    peaks = 1 + np.flatnonzero((inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > 0))
    peaks = peaks[peaks >= LEAST_LAG * rate]
    best = peaks[np.argsort(-correlation[peaks], kind="stable")][:most]
    return [float(peak / rate) for peak in best]


def _tenths(value: float) -> str:
    return f"{round(float(value), 1) + 0.0:.1f}"

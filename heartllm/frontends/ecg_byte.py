"""ECG-Byte (Han et al., MLHC 2025, arXiv 2412.14373): a waveform as letters, and byte-pair merges over the letters.

What defines it, and is here: amplitudes are clipped at the global 1st and 99th percentiles of the training set, scaled
to [0, 1] and floored to 26 letters; leads are written one after another; byte-pair encoding, learnt on such strings,
turns them into tokens of many letters each. Nothing is a network, and decoding returns the letters exactly.

Clipping where the paper clips cuts the R peaks: in PTB-XL those percentiles lie near -0.7 and 0.8 mV.

The budget. The paper writes 2 s of 12 leads at 250 Hz, 6,000 letters. Where the other systems have 313 positions, ten
seconds of even eight leads at 100 Hz are 8,000 letters and some 1,150 tokens after 3,474 merges (measured on PTB-XL:
6.7 letters a token; at 50 Hz 4.8, some 800 tokens). Four settings trade what is written against positions: `rate`,
`leads`, `seconds` and `strip`. By default a recording is written as an ECG is printed: 2.5 s of each of seven leads
(four more follow from I and II), then lead II for all of its 10 s, at 50 Hz: 1,375 letters, about 300 tokens. What does
not fit into `positions` is cut off at the end, which in a third of PTB-XL's recordings costs the strip its last
seconds; a recording that needs fewer leaves the rest at -1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heartllm.codec.codec import check_finite
from heartllm.ecg.leads import LIMB_FROM_I_II
from heartllm.ecg.recording import LEADS, SAMPLING_RATE
from heartllm.ecg.resampling import resample
from heartllm.errors import CheckpointError
from heartllm.frontends.base import SAMPLES, FrontEnd

Floats = npt.NDArray[np.float32]
Letters = npt.NDArray[np.uint8]
EMPTY = -1  # behind a recording's last token, and in unused rows of the table of merges


@dataclass(frozen=True)
class ECGByteConfig:
    """What is written, and in how many letters and tokens.

    Attributes:
        letters: levels of amplitude; "a" is the lowest.
        merges: byte-pair merges at most; with the letters they are the vocabulary (3,500 in the paper).
        low, high: percentiles of all training samples at which amplitude is clipped.
        rate: Hz.
        leads: in the order in which they are written.
        seconds: from the beginning, of every lead but the strip.
        strip: a further lead, or one of them, written last and in full; "" for none.
        positions: tokens a recording has at most.
    """

    letters: int = 26
    merges: int = 3474
    low: float = 1.0
    high: float = 99.0
    rate: float = 50.0
    leads: tuple[str, ...] = ("I", "V1", "V2", "V3", "V4", "V5", "V6")
    seconds: float = 2.5
    strip: str = "II"
    positions: int = 313

    def __post_init__(self) -> None:
        if not 2 <= self.letters <= 26:
            raise ValueError("letters lies between 2 and 26")
        if self.merges < 0 or self.positions < 1:
            raise ValueError("merges is 0 or more, positions 1 or more")
        if not 0 <= self.low < self.high <= 100:
            raise ValueError("low and high are percentiles, low below high")
        if not 0 < self.rate <= SAMPLING_RATE or not 0 < self.seconds <= SAMPLES / SAMPLING_RATE:
            raise ValueError("rate lies in (0, 500] Hz and seconds in (0, 10]")
        named = [*self.leads, *([self.strip] if self.strip else [])]
        if not named or len(set(self.leads)) < len(self.leads) or not set(named) <= set(LEADS):
            raise ValueError(f"leads and strip name some of {', '.join(LEADS)}, each lead once")


class ECGByte(FrontEnd):
    """The tokenizer. All it has learnt are two buffers, so that it is kept like any module's weights.

    `limits` (2,) are the clipping amplitudes in mV; `merges` (M, 2) int64 the pairs of ids in the order they were
    learnt, -1 where there are fewer. Ids are letters first, then one for each distinct merged string.
    """

    kind: ClassVar[str] = "ecg_byte"
    config_type: ClassVar[type] = ECGByteConfig
    config: ECGByteConfig
    width = None
    limits: Tensor
    merges: Tensor

    def __init__(self, config: ECGByteConfig) -> None:
        super().__init__()
        self.config = config
        self.codes = config.letters + config.merges
        self.positions = config.positions
        self.register_buffer("limits", torch.tensor([-1.0, 1.0]))
        self.register_buffer("merges", torch.full((config.merges, 2), EMPTY, dtype=torch.int64))
        self._built: tuple[bytes, list[str], Callable[[str], list[int]]] | None = None

    @property
    def plan(self) -> list[tuple[int, int]]:
        """(row of `LEADS`, letters) of every piece, in the order in which they are written."""
        part, whole = (
            math.ceil(seconds * self.config.rate) for seconds in (self.config.seconds, SAMPLES / SAMPLING_RATE)
        )
        plan = [(LEADS.index(name), part) for name in self.config.leads if name != self.config.strip]
        return plan + ([(LEADS.index(self.config.strip), whole)] if self.config.strip else [])

    def letters(self, signal: Floats) -> Letters:
        """(12, T) mV at 500 Hz -> (L,) letters from 0, what is to be written."""
        low, high = (float(limit) for limit in self.limits)
        rows = sorted({row for row, _ in self.plan})
        slow = dict(zip(rows, resample(signal[rows].astype(np.float64), SAMPLING_RATE, self.config.rate), strict=True))
        written = np.concatenate([slow[row][:count] for row, count in self.plan])
        levels = np.floor((written - low) / (high - low) * self.config.letters)
        return np.clip(levels, 0, self.config.letters - 1).astype(np.uint8)

    def tokens(self, letters: Letters) -> list[int]:
        """(L,) letters -> all their tokens, not cut to the budget."""
        return self._tables()[1]("".join(map(_LETTER.__getitem__, letters.tolist())))

    def spell(self, tokens: Sequence[int]) -> Letters:
        """Tokens, up to the first -1 -> their letters: the exact inverse of `tokens`."""
        pieces, known = [], self._tables()[0]
        for token in tokens:
            if token == EMPTY:
                break
            if not 0 <= token < len(known):
                raise CheckpointError(
                    f"{token} is none of its {len(known)} tokens",
                    where=self.kind,
                    remedy="Use codes of this tokenizer.",
                )
            pieces.append(known[token])
        return (np.frombuffer("".join(pieces).encode(), np.uint8) - ord("a")).astype(np.uint8)

    @torch.no_grad()
    def encode(self, signal: Tensor) -> Tensor:
        """(B, 12, T) mV at 500 Hz -> (B, positions) int64 tokens, -1 behind the last.

        Raises:
            DataError: if the signal holds NaN or infinity.
        """
        check_finite(signal)
        index = torch.full((len(signal), self.positions), EMPTY, dtype=torch.int64)
        for row, one in enumerate(signal.detach().cpu().numpy()):
            tokens = self.tokens(self.letters(one))[: self.positions]
            index[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        return index.to(signal.device)

    def decode(self, index: Tensor, samples: int = SAMPLES) -> Tensor:
        """(B, N) tokens -> (B, 12, samples) mV: each letter's middle, limb leads from I and II.

        Nothing was written of leads and times outside the plan, or behind the cut: those samples are 0.
        """
        return torch.stack([torch.from_numpy(self._draw(row, samples)) for row in index.cpu().tolist()])

    def _draw(self, tokens: list[int], samples: int) -> Floats:
        low, high = (float(limit) for limit in self.limits)
        written = low + (self.spell(tokens) + 0.5) / self.config.letters * (high - low)
        signal = np.zeros((len(LEADS), samples), np.float32)
        length = np.zeros(len(LEADS), np.int64)
        for row, count in self.plan:
            piece, written = written[:count], written[count:]
            if len(piece) > 1:
                fast = resample(piece[None], self.config.rate, SAMPLING_RATE)[0][:samples]
                length[row] = len(fast)
                signal[row, : len(fast)] = fast
        both = int(length[:2].min())
        derived = LIMB_FROM_I_II @ signal[:2, :both]
        signal[:6, :both] = np.where(length[:6, None] > 0, signal[:6, :both], derived)
        return signal

    def _tables(self) -> tuple[list[str], Callable[[str], list[int]]]:
        """Strings by id, and the function from a string to ids. Built anew when other merges have been loaded."""
        pairs = self.merges.cpu().numpy()
        mark = pairs.tobytes()
        if self._built is None or self._built[0] != mark:
            strings, named = merged_strings(self.config.letters, pairs[pairs[:, 0] != EMPTY])
            self._built = (mark, strings, _tokenizer(strings, named))
        return self._built[1], self._built[2]


_LETTER = [chr(ord("a") + i) for i in range(26)]


def merged_strings(letters: int, pairs: npt.NDArray[np.int64]) -> tuple[list[str], list[tuple[str, str]]]:
    """Strings by id, and each merge as its two strings; different merges may spell the same string.

    Raises:
        CheckpointError: if a merge names an id that is not there yet.
    """
    strings = _LETTER[:letters]
    known, named = set(strings), []
    for left, right in pairs.tolist():
        if not (0 <= left < len(strings) and 0 <= right < len(strings)):
            raise CheckpointError(
                f"merge ({left}, {right}) names a token that is not there yet",
                where="ecg_byte",
                remedy="The file is damaged: train the tokenizer again.",
            )
        pair = strings[left], strings[right]
        named.append(pair)
        if "".join(pair) not in known:
            strings.append("".join(pair))
            known.add(strings[-1])
    return strings, named


def _tokenizer(strings: Sequence[str], named: list[tuple[str, str]]) -> Callable[[str], list[int]]:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    model = BPE(vocab={string: i for i, string in enumerate(strings)}, merges=named)
    tokenizer: Any = Tokenizer(model)

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    return encode

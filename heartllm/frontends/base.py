"""A front-end is what a language model is fed for an ECG, and the only thing in which the compared systems differ.

    discrete     signal -> codes (N,), ids of a grown vocabulary          HeartLLM's FSQ codes, ECG-Byte
    continuous   signal -> values (N, width), then a small module that
                 trains with the language model turns them into its       w/o DISC, TEST, Time-LLM, CLIP
                 input vectors (N, hidden), "soft tokens"

Encoders are trained by themselves or not at all, then frozen: their output is stored once per recording, so training
the language model never opens a waveform, whichever system it is.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from heartllm.ecg.recording import SAMPLING_RATE, Recording
from heartllm.errors import DataError

SAMPLES = 5000  # 10 s at 500 Hz


class FrontEnd(nn.Module):
    """A frozen encoder of ECGs.

    Attributes:
        kind: its name in recipes and checkpoints.
        config_type: the frozen dataclass of its settings; `type(front)(front.config)` rebuilds it without its weights.
        config: its settings.
        codes: size of the vocabulary of a discrete front-end; None for a continuous one.
        width: numbers a position of a continuous front-end; None for a discrete one.
        positions: N, the most that a 10 s recording takes of the language model's context.
        bits: bits a second that reach the language model; for float16 values, 16 a number.
    """

    kind: ClassVar[str]
    config_type: ClassVar[type[Any]]
    config: Any
    codes: int | None
    width: int | None
    positions: int

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of a code's digits, least significant first; empty where codes are names and not numbers."""
        return ()

    @property
    def bits(self) -> float:
        """Bits a second of ECG: positions times log2 of the vocabulary, or times 16 bits a number."""
        from math import log2

        each = log2(self.codes) if self.codes is not None else 16.0 * (self.width or 0)
        return self.positions * each / 10.0

    @abstractmethod
    def encode(self, signal: Tensor) -> Tensor:
        """(B, 12, 5000) mV at 500 Hz -> (B, N) int64 codes, or (B, N, width) float32 values.

        Runs in float32 without gradients. A discrete front-end whose ECGs differ in length fills up with -1 behind.

        Raises:
            DataError: for NaN or infinite samples.
        """

    def blank(self, recordings: int) -> npt.NDArray[Any]:
        """What stands for so many recordings where only the length counts: (R, N) int64 or (R, N, width) float16."""
        if self.width is None:
            return np.zeros((recordings, self.positions), np.int64)
        return np.zeros((recordings, self.positions, self.width), np.float16)

    def describe(self, values: npt.NDArray[Any]) -> str:
        """Text that stands before an ECG in the prompt, from its stored values (N, width); nothing by default."""
        return ""

    def soft_input(self, hidden: int) -> nn.Module:
        """The module that turns stored values into inputs of a language model of width `hidden`.

        Its `forward(values, text_rows)` takes values (B, N, width) and the text rows (V, hidden) of the embedding table
        and returns (B, N, hidden). It trains with the language model and is kept in the checkpoint beside it.
        It treats positions one by one: training leaves out some at the front, and short ones are padded with zeros.

        Raises:
            NotImplementedError: for a discrete front-end, whose codes are rows of the vocabulary.
        """
        raise NotImplementedError(f"{self.kind} is discrete")


def encode_recording(front: FrontEnd, recording: Recording) -> npt.NDArray[Any]:
    """A 10 s recording at 500 Hz -> codes (N,) int64 or values (N, width) float16, as a token store holds them.

    Raises:
        DataError: for another length or rate, and for NaN or infinite samples.
    """
    if recording.sampling_rate != SAMPLING_RATE or recording.signal.shape[1] != SAMPLES:
        raise DataError(
            f"lasts {recording.duration:.2f} s at {recording.sampling_rate:g} Hz; front-ends want 10 s at 500 Hz",
            where=recording.path or recording.record_id,
            remedy='Read it with target_rate=500 and length="crop" (or windows).',
        )
    codes: npt.NDArray[Any] = front.encode(torch.from_numpy(recording.signal)[None])[0].numpy()
    return codes if front.width is None else codes.astype(np.float16)

"""`Responder`: a loaded checkpoint that encodes recordings and answers questions about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch

from heartllm.checkpoint import CheckpointConfig, load_frontend, load_language, verify
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError
from heartllm.frontends.base import FrontEnd, encode_recording
from heartllm.frontends.fsq import FSQCodes
from heartllm.language.generation import Generator, ResponderItem
from heartllm.language.vocabulary import ECG


class Responder:
    """A checkpoint at work.

    Attributes:
        front: its front-end.
        fingerprint: hash of the checkpoint's content.
        codec_hash: hash of its front-end, the key of any cache of codes.
        blind: it was trained without ECGs and gets none.
    """

    def __init__(
        self, front: FrontEnd, generator: Generator, config: CheckpointConfig, fingerprint: str, codec_hash: str
    ) -> None:
        self.front, self.generator, self.config = front, generator, config
        self.fingerprint, self.codec_hash, self.blind = fingerprint, codec_hash, config.blind

    @classmethod
    def load(cls, checkpoint: Path, *, device: str = "cpu", threads: int | None = None) -> Responder:
        """Loads and verifies a checkpoint folder.

        Raises:
            CheckpointError: if a file is missing, altered or does not fit.
        """
        if threads:
            torch.set_num_threads(threads)
        fingerprint = verify(checkpoint)
        front, codec_hash = load_frontend(checkpoint)
        model, config = load_language(checkpoint)
        return cls(front, Generator(model.to(device), config.layout), config, fingerprint, codec_hash)

    @property
    def codec(self) -> FSQCodes:
        """The front-end where it is the codec.

        Raises:
            CheckpointError: where it is another one.
        """
        if not isinstance(self.front, FSQCodes):
            remedy = "Use a checkpoint that was trained on the codec's codes."
            raise CheckpointError(f"the front-end is {self.front.kind!r}, not the codec", remedy=remedy)
        return self.front

    @property
    def dtype(self) -> str:
        """What the language model computes in: "float32", "bfloat16", ..."""
        return str(self.generator.table.dtype).removeprefix("torch.")

    def encode(self, recording: Recording) -> ECG:
        """Codes (N,) int64 or values (N, width) float16 of a 10 s recording; see `encode_recording`."""
        return encode_recording(self.front, recording)

    def answer(
        self, items: Sequence[ResponderItem], *, max_new_tokens: int = 64, batch_size: int = 32
    ) -> Iterator[str]:
        """Greedy answers in the order of the items; see `Generator.answer`.

        A blind checkpoint gets no codes, and one trained without patient features gets none.
        """
        shown = [
            ResponderItem(
                item.recording_key,
                None if self.blind else item.codes,
                item.question,
                item.features if self.config.features else "",
            )
            for item in items
        ]
        return self.generator.answer(shown, max_new_tokens=max_new_tokens, batch_size=batch_size)

    def option_scores(self, item: ResponderItem, questions: Sequence[str], options: Sequence[str]) -> npt.NDArray[Any]:
        """Log likelihoods (questions, options); see `Generator.option_scores`."""
        return self.generator.option_scores(item, questions, options)

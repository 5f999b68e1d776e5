"""`Responder`: a loaded checkpoint that encodes recordings and answers questions about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from heartllm.checkpoint import CheckpointConfig, load_codec, load_language, verify
from heartllm.codec.codec import Codec
from heartllm.codec.tokenise import SAMPLES
from heartllm.ecg.recording import SAMPLING_RATE, Recording
from heartllm.errors import CheckpointError, DataError
from heartllm.language.generation import Generator, ResponderItem


class Responder:
    """A checkpoint at work.

    Attributes:
        fingerprint: hash of the checkpoint's content.
        codec_hash: hash of its codec, the key of any cache of codes.
        blind: it was trained without ECGs and gets none.
    """

    def __init__(
        self, codec: Codec, generator: Generator, config: CheckpointConfig, fingerprint: str, codec_hash: str
    ) -> None:
        self.codec, self.generator, self.config = codec, generator, config
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
        codec, codec_hash = load_codec(checkpoint)
        model, config = load_language(checkpoint)
        if config.codec.levels != codec.config.levels:
            raise CheckpointError(
                f"codec.toml has levels {list(codec.config.levels)}, checkpoint.toml {list(config.codec.levels)}",
                where=checkpoint,
                remedy="Put the codec back that the language model was trained with.",
            )
        return cls(codec, Generator(model.to(device), config.layout), config, fingerprint, codec_hash)

    @property
    def dtype(self) -> str:
        """What the language model computes in: "float32", "bfloat16", ..."""
        return str(self.generator.table.dtype).removeprefix("torch.")

    def encode(self, recording: Recording) -> npt.NDArray[np.int64]:
        """A 10 s recording at 500 Hz -> codes (313,)."""
        if recording.sampling_rate != SAMPLING_RATE or recording.signal.shape[1] != SAMPLES:
            raise DataError(
                f"lasts {recording.duration:.2f} s at {recording.sampling_rate:g} Hz; the codec wants 10 s at 500 Hz",
                where=recording.path or recording.record_id,
                remedy='Read it with target_rate=500 and length="crop" (or windows).',
            )
        codes: npt.NDArray[np.int64] = self.codec.encode(torch.from_numpy(recording.signal)[None])[0].numpy()
        return codes

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

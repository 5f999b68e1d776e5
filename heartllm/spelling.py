"""ECGs and prompts as text, as an exported model reads them; the language model itself is not loaded.

What `heartllm codes` prints and what is sent to a server of an exported folder come from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heartllm.checkpoint import CheckpointConfig, load_config, load_frontend, verify
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError
from heartllm.frontends.base import FrontEnd, encode_recording
from heartllm.language.prompts import ecg_text, prompt_text
from heartllm.language.vocabulary import ECG


@dataclass(frozen=True)
class Speller:
    """A checkpoint's front-end, which has codes, and its way of asking.

    Attributes:
        config: of its language model; None for a folder that holds a front-end alone.
        fingerprint: hash of the checkpoint's content.
        codec_hash: hash of its front-end.
    """

    folder: Path
    front: FrontEnd
    config: CheckpointConfig | None
    fingerprint: str
    codec_hash: str

    @classmethod
    def load(cls, folder: Path) -> Speller:
        """Loads and verifies a checkpoint without its language model, or a folder of `heartllm tokenizer`.

        Raises:
            CheckpointError: if a file is missing, altered or does not fit, or the front-end has no codes.
        """
        fingerprint = verify(folder)
        front, codec_hash = load_frontend(folder)
        if front.codes is None:
            raise CheckpointError(
                f"the front-end {front.kind!r} gives soft tokens, which have no spelling",
                where=folder,
                remedy="Name a checkpoint whose ECGs are codes, or ask this one with `heartllm ask`.",
            )
        config = load_config(folder, front) if (folder / "checkpoint.toml").is_file() else None
        return cls(folder, front, config, fingerprint, codec_hash)

    def encode(self, recording: Recording) -> ECG:
        """The codes (N,) int64 of a 10 s recording; -1 behind the last, where the front-end fills up short ones."""
        return encode_recording(self.front, recording)

    def spell(self, codes: ECG) -> str:
        """Codes (N,) as text: `<|start_ecg|><ecg_0017>...<|end_ecg|>`."""
        return ecg_text(codes)

    def prompt(self, features: str, codes: ECG | None, question: str | None) -> str:
        """The whole prompt as this checkpoint was trained on it; see `own_prompt`.

        Raises:
            CheckpointError: if there is no language model, which alone says how it is asked.
        """
        if self.config is None:
            raise CheckpointError(
                "holds no language model, so nothing says how it is asked",
                where=self.folder,
                remedy="Name the checkpoint that `heartllm tune` wrote.",
            )
        return own_prompt(self.config, features, codes, question)


def own_prompt(
    config: CheckpointConfig,
    features: str,
    codes: ECG | None,
    question: str | None,
    describe: Callable[[ECG], str] | None = None,
) -> str:
    """`prompt_text` in a checkpoint's layout: one trained blind gets no ECG, one trained without features none."""
    shown = None if config.blind else codes
    return prompt_text(features if config.features else "", shown, question, config.layout, describe)

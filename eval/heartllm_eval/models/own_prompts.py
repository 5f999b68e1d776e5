"""A checkpoint's own prompts, ECG codes and all, for a server of what `heartllm export` made of it.

Only the front-end is loaded here. The prompts are those that `--model heartllm` puts to the same checkpoint, so that a
server which answers greedily answers alike.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import UsageError
from heartllm_eval.models.base import Context
from heartllm_eval.models.ecg_codes import ECGCodes, together
from heartllm_eval.models.prompting import Prompt, Showing
from heartllm_eval.schema import Request

if TYPE_CHECKING:
    from heartllm.checkpoint import CheckpointConfig

ANSWERS_VERSION = 1  # raise it when a server would be sent another prompt for the same request


class OwnPrompter(Showing):
    """Builds prompts as `Prompter` does, in its place; its checkpoint says what an ECG looks like.

    Args:
        checkpoint: the folder that the served model was exported from.
        ecg: "true", "shuffled" or "none".

    Raises:
        UsageError: if the folder holds no language model, or for another `ecg`.
        CheckpointError: if it is altered, or its ECGs are no codes.
    """

    version = ANSWERS_VERSION

    def __init__(self, context: Context, checkpoint: str, *, ecg: str = "true") -> None:
        from heartllm.spelling import Speller

        super().__init__(context, ecg)
        self.speller = Speller.load(Path(checkpoint))
        if self.speller.config is None:
            raise UsageError(
                "holds no language model", where=f"codes={checkpoint}", remedy="Name the checkpoint that was exported."
            )
        self.config: CheckpointConfig = self.speller.config
        self.codes = ECGCodes(replace(context, warn=lambda message: None), self.speller)  # `openai` tells each failure

    def describe(self) -> dict[str, Any]:
        """The checkpoint whose export the server is said to run, and what is shown."""
        about = {
            "checkpoint": self.speller.fingerprint,
            "codec": self.speller.codec_hash,
            "ecg": self.ecg,
            "trained_on": list(self.config.data),
        }
        return self.about(about)

    def prompt(self, request: Request) -> Prompt:
        """The prompt of a request, all of it in `user`.

        Raises:
            DataError: if its recording cannot be read.
        """
        codes = None if self.ecg == "none" else together(self.codes.of, request, self.shown(request), self.reader)
        question = request.question if request.kind == "qa" else None
        return Prompt("", self.speller.prompt(request.background, codes, question))

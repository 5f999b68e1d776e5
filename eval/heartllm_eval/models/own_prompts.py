"""A checkpoint's own prompts, ECG codes and all, for a server of what `heartllm export` made of it.

Only the front-end is loaded here. The prompts are those that `--model heartllm` puts to the same checkpoint, so that a
server which answers greedily answers alike.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import UsageError
from heartllm_eval.models.base import Context, Task
from heartllm_eval.models.ecg_codes import ECGCodes, together
from heartllm_eval.models.heartllm import ECG_MODES, shuffled_recordings
from heartllm_eval.models.prompting import Prompt
from heartllm_eval.schema import Request
from heartllm_eval.suite import Reader

if TYPE_CHECKING:
    from heartllm.checkpoint import CheckpointConfig

ANSWERS_VERSION = 1  # raise it when a server would be sent another prompt for the same request


class OwnPrompter:
    """Builds prompts as `Prompter` does, in its place.

    Args:
        checkpoint: the folder that the served model was exported from.
        ecg: "true", "shuffled" or "none".

    Raises:
        UsageError: if the folder holds no language model, or for another `ecg`.
        CheckpointError: if it is altered, or its ECGs are no codes.
    """

    def __init__(self, context: Context, checkpoint: str, *, ecg: str = "true") -> None:
        from heartllm.spelling import Speller

        if ecg not in ECG_MODES:
            raise UsageError(f"ecg={ecg!r}", where="--model_args", remedy=f"Choose one of: {', '.join(ECG_MODES)}.")
        self.context, self.ecg = context, ecg
        self.speller = Speller.load(Path(checkpoint))
        if self.speller.config is None:
            raise UsageError(
                "holds no language model", where=f"codes={checkpoint}", remedy="Name the checkpoint that was exported."
            )
        self.config: CheckpointConfig = self.speller.config
        self.codes = ECGCodes(replace(context, warn=lambda message: None), self.speller)  # `openai` tells each failure
        self._task: Task | None = None
        self._reader = Reader()
        self._donors: dict[str, str] = {}

    def describe(self) -> dict[str, Any]:
        """The checkpoint whose export the server is said to run, and what is shown."""
        about = {
            "checkpoint": self.speller.fingerprint,
            "codec": self.speller.codec_hash,
            "ecg": self.ecg,
            "trained_on": list(self.config.data),
        }
        return {**about, "seed": self.context.seed} if self.ecg == "shuffled" else about

    @property
    def answers_version(self) -> int | None:
        """For the cache of answers; None under `ecg=shuffled`, as in `Prompter`."""
        return None if self.ecg == "shuffled" else ANSWERS_VERSION

    def prepare(self, task: Task) -> None:
        """Decides whose ECG is shown to whom, and how ECGs are read; call it before `prompt`."""
        if task is self._task:
            return
        self._task, self._reader = task, task.reader
        self._donors = shuffled_recordings(task.requests, self.context.seed) if self.ecg == "shuffled" else {}

    def prompt(self, request: Request) -> Prompt:
        """The prompt of a request, all of it in `user`.

        Raises:
            DataError: if its recording cannot be read.
        """
        shown = [self._donors.get(record, record) for record in request.record_ids]
        codes = None if self.ecg == "none" else together(self.codes.of, request, shown, self._reader)
        question = request.question if request.kind == "qa" else None
        return Prompt("", self.speller.prompt(request.background, codes, question))

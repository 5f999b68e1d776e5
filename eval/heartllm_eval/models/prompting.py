"""How an ECG and a question are put to a model that reads text (`hf`, `openai`): features, measurements, options.

`ecg=true` shows the recording's own measurements (and image, where asked for), `ecg=shuffled` those of another
patient, `ecg=none` none: the same model under its controls.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.data.records import ANSWER_SEPARATOR
from heartllm.errors import DataError, UsageError
from heartllm_eval.metrics.option_ranking import has_several_answers
from heartllm_eval.models.base import Context, Task
from heartllm_eval.models.heartllm import ECG_MODES, shuffled_recordings
from heartllm_eval.schema import Request, digest
from heartllm_eval.suite import Reader

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

PROMPT_VERSION = 1  # change it with any wording below: answers to other prompts are another model's
ANSWERS_VERSION = 1  # raise it when `hf` or `openai` would answer the same prompt otherwise
SYSTEM = (
    "You are an expert in electrocardiography. You are given what is known of a patient and measurements of a 12-lead "
    "ECG. Follow the instruction exactly and write nothing else."
)
ASK_ONE = "Answer with exactly one of these options, as it is written"
ASK_SOME = (
    "Answer with those of these options that apply, exactly as they are written, several separated by "
    f'"{ANSWER_SEPARATOR.strip()}"'
)
ASK_SHORT = (
    f'Answer briefly, with "yes", "no", "not sure", "none" or the names asked for, several separated by '
    f'"{ANSWER_SEPARATOR.strip()}".'
)
ASK_REPORT = "Write the report of this ECG in a few short statements, as a cardiologist would. Give only the report."


def flag(name: str, value: str) -> bool:
    """The truth of a model argument.

    Raises:
        UsageError: for anything but true and false.
    """
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[value.lower()]
    except KeyError:
        raise UsageError(
            f"{name}={value!r}", where="--model_args", remedy=f"Write {name}=true or {name}=false."
        ) from None


def number(name: str, value: str, *, low: float, high: float = float("inf"), whole: bool = False) -> float:
    """A number among the model arguments.

    Raises:
        UsageError: for anything else, or beyond its limits.
    """
    try:
        found = int(value) if whole else float(value)
    except ValueError:
        found = float("nan")
    if not low <= found <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"from {low:g}" + ("" if high == float("inf") else f" to {high:g}")
        raise UsageError(f"{name}={value!r}", where="--model_args", remedy=f"Write {kind} {limits}.")
    return found


@dataclass(frozen=True)
class Prompt:
    """What is shown: `system` and `user` text, and the recordings whose images go with them."""

    system: str
    user: str
    recordings: tuple[Recording, ...] = ()

    @property
    def text(self) -> str:
        """For a model without a chat format."""
        return f"{self.system}\n\n{self.user}\nAnswer:"


class Showing:
    """Whose ECG is shown with a request, and how it is read: what all that build prompts have in common.

    Args:
        ecg: "true", "shuffled" (another patient's) or "none".

    Raises:
        UsageError: for another `ecg`.
    """

    version: int  # of the prompts, for the cache of answers

    def __init__(self, context: Context, ecg: str) -> None:
        if ecg not in ECG_MODES:
            raise UsageError(f"ecg={ecg!r}", where="--model_args", remedy=f"Choose one of: {', '.join(ECG_MODES)}.")
        self.context, self.ecg = context, ecg
        self.reader = Reader()
        self._donors: dict[str, str] = {}
        self._task: Task | None = None

    @property
    def answers_version(self) -> int | None:
        """For the cache of answers; None under `ecg=shuffled`, where a prompt depends on who else is asked about."""
        return None if self.ecg == "shuffled" else self.version

    def prepare(self, task: Task) -> None:
        """Decides whose ECG is shown to whom, and how ECGs are read; call it before `prompt`."""
        if task is self._task:
            return
        self._task, self.reader = task, task.reader
        self._donors = shuffled_recordings(task.requests, self.context.seed) if self.ecg == "shuffled" else {}

    def shown(self, request: Request) -> list[str]:
        """The recordings that are shown."""
        return [self._donors.get(record, record) for record in request.record_ids]

    def about(self, described: Mapping[str, Any]) -> dict[str, Any]:
        """A description, with the seed where the answers depend on it."""
        return {**described, "seed": self.context.seed} if self.ecg == "shuffled" else dict(described)


class Prompter(Showing):
    """Builds prompts; a recording's measurements are made once a run, and kept in the cache folder if there is one.

    Args:
        ecg: "true", "shuffled" or "none".
        features: show the patient's structured features.
        summary: show the ECG's measurements as text.
        image: hand out the recordings, too.
        options: show the allowed answers.
    """

    version = ANSWERS_VERSION

    def __init__(
        self,
        context: Context,
        *,
        ecg: str = "true",
        features: str = "true",
        summary: str = "true",
        image: str = "false",
        options: str = "true",
    ) -> None:
        super().__init__(context, ecg)
        self.features, self.options = flag("features", features), flag("options", options)
        self.summary = flag("summary", summary) and ecg != "none"
        self.image = flag("image", image) and ecg != "none"
        self._summaries: dict[tuple[str, str, Reader], str] = {}

    def describe(self) -> dict[str, Any]:
        """What is shown, for the run's record."""
        about: dict[str, Any] = {"ecg": self.ecg, "prompt": PROMPT_VERSION}
        about.update(features=self.features, summary=self.summary, image=self.image, options=self.options)
        if self.summary:
            from heartllm.ecg.summary import VERSION

            about["measurements"] = VERSION
        return self.about(about)

    def prompt(self, request: Request) -> Prompt:
        """The prompt of a request.

        Raises:
            DataError: if its recording cannot be read.
        """
        shown = self.shown(request)
        parts = []
        if self.features and request.background:
            parts.append(f"Patient: {request.background}")
        if self.summary:
            parts += [
                f"{_title(index, len(shown))}:\n{self.measurements(request.dataset, record)}"
                for index, record in enumerate(shown)
            ]
        parts.append(_instruction(request, self.options))
        recordings = tuple(self._read(request.dataset, record) for record in shown) if self.image else ()
        return Prompt(SYSTEM, "\n\n".join(parts), recordings)

    def measurements(self, dataset: str, record_id: str) -> str:
        """The recording's measurements as text, from the cache folder if they are there."""
        from heartllm.ecg import summary

        key = (dataset, record_id, self.reader)
        if key not in self._summaries:
            file = cache_file(self.context, f"summary-{summary.VERSION}", dataset, record_id, self.reader, ".txt")
            if file is not None and file.is_file():
                self._summaries[key] = file.read_text(encoding="utf-8")
            else:
                self._summaries[key] = summary.summarise(self._read(dataset, record_id))
                if file is not None:
                    part = file.with_suffix(f".{os.getpid()}.part")
                    part.write_text(self._summaries[key], encoding="utf-8")
                    part.replace(file)
        return self._summaries[key]

    def _read(self, dataset: str, record_id: str) -> Recording:
        return self.context.workspace.read(dataset, record_id, self.reader)


def cache_file(context: Context, kind: str, dataset: str, record_id: str, reader: Reader, suffix: str) -> Path | None:
    """Where what was computed from a recording is kept, by the recording's content; None without a cache folder.

    Raises:
        DataError: if the recording's files cannot be read.
    """
    if context.cache is None:
        return None
    content = context.workspace.recording_hash(dataset, record_id)
    folder = context.cache / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{digest(content, reader.length, reader.nan_policy, length=32)}{suffix}"


def failed(context: Context, request: Request, error: DataError) -> str:
    """Tells of a recording that cannot be used; returns what its prediction's `error` is to be."""
    context.warn(f"recording {request.dataset}/{'+'.join(request.record_ids)} cannot be used: {error.without_folder()}")
    return error.without_folder()


def _title(index: int, count: int) -> str:
    return "ECG measurements" if count == 1 else f"Measurements of ECG {index + 1}"


def _instruction(request: Request, options: bool) -> str:
    if request.kind == "report":
        return ASK_REPORT
    if options and request.options:
        ask = ASK_SOME if has_several_answers(request) else ASK_ONE
        listed = " Options: " in request.question  # the suite's prompt has listed them behind the question
        ask = ask.replace("these", "the") + "." if listed else f"{ask}: {ANSWER_SEPARATOR.join(request.options)}"
    else:
        ask = ASK_SHORT
    return f"Question: {request.question}\n{ask}"

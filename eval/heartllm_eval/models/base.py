"""Model adapters: the one thing to write to evaluate another model.

An adapter is a class whose constructor takes the `Context` and the `--model_args` as keyword arguments (text), and that
has two methods. This is a whole one:

    class Shouting:
        '''Answers every question with one word.'''

        def __init__(self, context: Context, *, word: str = "yes") -> None:
            self.word = word

        def describe(self) -> dict[str, str]:
            return {"word": self.word}                      # what tells this model from another: hashes, versions

        def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
            for request in requests:                        # in any order; each is written to disk when it is yielded
                yield Prediction(request.id, self.word.upper())

A package makes it known under a name with an entry point, and `heartllm-eval run --model shouting` finds it:

    [project.entry-points."heartllm_eval.models"]
    shouting = "my_package:Shouting"
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

from heartllm.errors import UsageError, missing_package
from heartllm_eval.metrics import needs_option_scores
from heartllm_eval.models.batching import Batches
from heartllm_eval.requests import Workspace, build_requests
from heartllm_eval.schema import Kind, Prediction, Request
from heartllm_eval.suite import Reader, Suite

ENTRY_POINTS = "heartllm_eval.models"
BUILT_IN = {
    "heartllm": "heartllm_eval.models.heartllm:HeartLLM",
    "authors": "heartllm_eval.models.authors:Authors",
    "predictions": "heartllm_eval.models.predictions:Predictions",
    "hf": "heartllm_eval.models.hf:HuggingFace",
    "openai": "heartllm_eval.models.openai:OpenAI",
    "majority": "heartllm_eval.models.controls:Majority",
    "constant": "heartllm_eval.models.controls:Constant",
    "retrieval": "heartllm_eval.models.retrieval:Retrieval",
    "gold": "heartllm_eval.models.controls:Gold",
}


@dataclass(frozen=True)
class Context:
    """What an adapter may use.

    Attributes:
        workspace: opens datasets and recordings.
        seed: for whatever an adapter draws.
        device: "cpu", "cuda", ...
        batch_size: how many answers to generate at once. auto_batch: fewer where the memory runs out (`batches`).
        cache: a folder for what is costly to compute again (`--use_cache`), or None.
        warn: tells the user something that the run's record keeps, too.
    """

    workspace: Workspace
    seed: int = 0
    device: str = "cpu"
    batch_size: int = 16
    auto_batch: bool = False
    cache: Path | None = None
    warn: Callable[[str], None] = lambda message: None

    def batches(self) -> Batches:
        """What cuts requests into batches of the size asked; with `--batch_size auto`, of a size that fits."""
        return Batches(self.batch_size, auto=self.auto_batch, warn=self.warn)


@dataclass(frozen=True)
class Task:
    """What is being run.

    Attributes:
        name: the suite.
        kind: "qa" or "report".
        requests: all of them, also those that an earlier start of this run has already answered.
        max_new_tokens: where an answer is cut off.
        reader: how the suite wants recordings read (for `Workspace.read`).
        training: builds the same kind of requests, with answers, from the training split.
        score_options: a metric ranks candidate answers by likelihood. An adapter that can then also fills
            `Prediction.option_scores`; any other goes on as it is, and that metric counts none of its samples.
    """

    name: str
    kind: Kind
    requests: Sequence[Request]
    max_new_tokens: int = 64
    training: Callable[[], Sequence[Request]] = field(default=lambda: ())
    score_options: bool = False
    reader: Reader = field(default_factory=Reader)


def task_of(suite: Suite, requests: Sequence[Request], workspace: Workspace) -> Task:
    """The task of asking a suite's requests."""
    return Task(
        suite.name,
        suite.kind,
        requests,
        suite.generation.max_new_tokens,
        lambda: _training(suite, workspace),
        needs_option_scores(suite.metric_names),
        suite.reader,
    )


def _training(suite: Suite, workspace: Workspace) -> list[Request]:
    """What may be learnt from: the training split of the suite's dataset, or of those it is zero-shot from."""
    suites = [replace(suite, dataset=name, zero_shot_from=()) for name in suite.zero_shot_from] or [suite]
    return [request for part in suites for request in build_requests(part, workspace, split=suite.train_split)]


class Adapter(Protocol):
    """A model.

    An adapter may also have:

    - `answers_version`, a number that is raised when it would answer the same request otherwise: its answers are then
      kept by `--use_cache`, under a key of this number, its description and the request. None: they are not kept.
    - `prompt(request, task) -> str`, what `--write_out` shows.
    - `prompt_tokens(request, task) -> int`, what `--dry-run` adds up.
    - `check_arguments(model_args)`, a static method that raises UsageError: for arguments that may hold a secret by
      mistake, and so must be refused before they are in a record.
    - an argument `ecg` that takes "true", "shuffled" (another patient's; see `heartllm_eval.models.prompting.Prompter`)
      and "none": `--control shuffled,blind` then stand beside it.
    """

    def describe(self) -> Mapping[str, Any]:
        """What tells this model from another (hashes, versions). A run is continued only by the same description."""

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Answers the requests, in any order, each once."""


def known_kinds() -> dict[str, str]:
    """Kind -> "module:class" of every adapter, those of installed packages included."""
    found = dict(BUILT_IN)
    for point in metadata.entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, point.value)
    return found


def parse_model_args(text: str) -> dict[str, str]:
    """Reads "checkpoint=DIR,ecg=none".

    Raises:
        UsageError: where a part is no k=v, or a key comes twice.
    """
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"{part!r} is not of the form k=v", where="--model_args", remedy="Write checkpoint=DIR,ecg=none."
            )
        if key.strip() in found:
            raise UsageError(f"{key.strip()!r} comes twice", where="--model_args", remedy="Give it once.")
        found[key.strip()] = value.strip()
    return found


def adapter_class(kind: str) -> Callable[..., Adapter]:
    """The adapter called `kind`.

    Raises:
        UsageError: if there is none, or its package does not hold what its entry point says.
    """
    kinds = known_kinds()
    if kind not in kinds:
        near = difflib.get_close_matches(kind, kinds, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known kinds: {', '.join(sorted(kinds))}."
        raise UsageError(f"unknown model kind {kind!r}", where="--model", remedy=hint)
    module, _, name = kinds[kind].partition(":")
    try:
        return cast("Callable[..., Adapter]", getattr(importlib.import_module(module), name))
    except AttributeError:
        raise UsageError(
            f"{module} has no {name!r}", where=f"--model {kind}", remedy="Correct the package's entry point."
        ) from None


def check_arguments(kind: str, model_args: Mapping[str, str]) -> None:
    """Holds `--model_args` against what the adapter takes, before anything is read or written.

    An adapter whose arguments may hold a secret by mistake has `check_arguments` (see `Adapter`), which refuses them:
    what is refused here is in no record.

    Raises:
        UsageError: for arguments that it does not take or lacks.
    """
    parameters = {
        name: part for name, part in inspect.signature(adapter_class(kind)).parameters.items() if name != "context"
    }
    for key in model_args:
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It takes: {', '.join(parameters) or 'none'}."
            raise UsageError(f"{kind} takes no argument {key!r}", where="--model_args", remedy=hint)
    for name, part in parameters.items():
        if part.default is inspect.Parameter.empty and name not in model_args:
            raise UsageError(f"{kind} needs {name!r}", where="--model_args", remedy=f"Add {name}=...")
    check: Any = getattr(adapter_class(kind), "check_arguments", None)
    if check is not None:
        check(model_args)
    folder = model_args.get("checkpoint")
    if folder is not None and not Path(folder).is_dir():
        raise UsageError("no such folder", where=f"checkpoint={folder}", remedy="Name the folder of a checkpoint.")


def check_device(device: str) -> None:
    """Tries a device, before an adapter loads a model to it. Imports torch, but not for the CPU, which is always there.

    Raises:
        UsageError: if torch does not know it, or cannot use it here.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        reason = str(error).strip().partition("\n")[0][:100].rstrip(".")
        raise UsageError(
            f"{device!r} cannot be used here ({reason})",
            where="--device",
            remedy="Choose cpu, or see what torch finds.",
        ) from None


def create(kind: str, model_args: Mapping[str, str], context: Context) -> Adapter:
    """Makes the adapter `kind`.

    Raises:
        UsageError: for arguments that it does not take or lacks.
        HeartLLMError: if it needs a package that is not installed, such as torch.
    """
    check_arguments(kind, model_args)
    try:
        return adapter_class(kind)(context, **model_args)
    except ModuleNotFoundError as error:
        raise missing_package(error) or error from None

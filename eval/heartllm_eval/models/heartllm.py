"""A HeartLLM checkpoint; with `ecg=shuffled` or `ecg=none` the same under a control. Torch loads only here."""

from __future__ import annotations

import importlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from heartllm.errors import DataError, UsageError
from heartllm_eval.metrics.option_ranking import rank_options
from heartllm_eval.models.base import Context, Task, check_device
from heartllm_eval.models.batching import longest_first
from heartllm_eval.models.ecg_codes import Codes, ECGCodes, together
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.suite import Reader

ANSWERS_VERSION = 1  # of prompts and decoding: cached answers of another version are not used
_CODES = re.compile(r"(?:<ecg_\d+>){2,}")
ECG_MODES = ("true", "shuffled", "none")


@lru_cache(maxsize=2)
def _responder(checkpoint: Path, device: str, threads: int | None) -> Any:
    """The checkpoint with its codec and language model; shared by the model and its shuffled control."""
    module: Any = importlib.import_module("heartllm.responder")
    return module.Responder.load(checkpoint, device=device, threads=threads)


class HeartLLM:
    """`--model heartllm --model_args checkpoint=DIR[,ecg=true|shuffled|none][,threads=N]`."""

    def __init__(self, context: Context, *, checkpoint: str, ecg: str = "true", threads: str | None = None) -> None:
        if ecg not in ECG_MODES:
            raise UsageError(f"ecg={ecg!r}", where="--model_args", remedy=f"Choose one of: {', '.join(ECG_MODES)}.")
        if threads is not None and not (threads.isdigit() and int(threads) > 0):
            raise UsageError(
                f"threads={threads!r}", where="--model_args", remedy="Write a whole number, as in threads=2."
            )
        self.context, self.ecg = context, ecg
        check_device(context.device)
        self.responder = _responder(Path(checkpoint), context.device, int(threads) if threads else None)
        # Of the shuffled control an answer also depends on what else is asked.
        self.answers_version = ANSWERS_VERSION if ecg != "shuffled" else None
        self._codes = ECGCodes(context, self.responder)

    def describe(self) -> dict[str, Any]:
        """The checkpoint's content and what it is shown."""
        shown: dict[str, Any] = {
            "fingerprint": self.responder.fingerprint,
            "codec": self.responder.codec_hash,
            "ecg": self.ecg,
            "dtype": self.responder.dtype,
            "trained_on": list(self.responder.config.data),
        }
        return {**shown, "seed": self.context.seed} if self.ecg == "shuffled" else shown

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Generates greedily, all questions of a recording in a row, so that one prefix serves them.

        Where the task wants options ranked, each answer comes with the likelihoods of the allowed ones.
        """
        donors = shuffled_recordings(task.requests, self.context.seed) if self.ecg == "shuffled" else {}
        batches, ordered = self.context.batches(), by_recording(requests)
        if batches.auto:
            ordered = longest_first(ordered, _rough_length, batches.size)
        pending = iter(ordered)

        def answer(part: Sequence[tuple[Request, Any]]) -> list[str]:
            items = [item for _, item in part]
            return list(
                self.responder.answer(items, max_new_tokens=task.max_new_tokens, batch_size=self.context.batch_size)
            )

        while group := list(islice(pending, max(64, 4 * batches.size))):
            asked = []
            for request in group:
                item = self._item(request, task, donors)
                if isinstance(item, str):
                    yield Prediction(request.id, "", error=item)
                else:
                    asked.append((request, item))
            for (request, item), text in batches.run(asked, answer):
                yield Prediction(request.id, text, None, self._ranked(request, item) if task.score_options else None)

    def prompt(self, request: Request, task: Task) -> str:
        """The whole prompt, with the ECG's codes shortened."""
        spelling: Any = importlib.import_module("heartllm.spelling")
        item = self._item(request, task, {})
        if isinstance(item, str):
            return f"(not asked: {item})"
        front = self.responder.front
        text = spelling.own_prompt(self.responder.config, item.features, item.codes, item.question, front.describe)
        return shortened(str(text), "codes" if front.width is None else "soft tokens")

    def prompt_tokens(self, request: Request, task: Task) -> int:
        """The length of the prompt; an ECG counts 313 codes (what its front-end takes at most) and two marks."""
        prompts: Any = importlib.import_module("heartllm.language.prompts")
        config, vocabulary = self.responder.config, self.responder.generator.vocabulary
        seen = len(request.record_ids) if self.ecg != "none" and not config.blind else 0
        codes = self.responder.front.blank(seen) if seen else None
        question = request.question if request.kind == "qa" else None
        inside = question if config.layout == "question-first" else None
        prefix, _ = prompts.prefix_ids(vocabulary, request.background if config.features else "", codes, inside)
        return len(prefix) + len(prompts.prompt_ids(vocabulary, question, config.layout))

    def _item(self, request: Request, task: Task, donors: Mapping[str, str]) -> Any:
        """What the responder is asked; of a request about a bad recording, what is wrong."""
        module: Any = importlib.import_module("heartllm.responder")
        shown = [donors.get(record, record) for record in request.record_ids]
        try:
            codes = None if self.ecg == "none" else together(self.codes, request, shown, task.reader)
        except DataError as error:
            return error.without_folder()
        return module.ResponderItem(
            recording_key=f"{request.dataset}/{'+'.join(request.record_ids)}@{'+'.join(shown)}",
            codes=codes,
            question=request.question if request.kind == "qa" else None,
            features=request.background,
        )

    def _ranked(self, request: Request, item: Any) -> Mapping[str, float] | None:
        """Candidate answers with their log likelihoods, where the question has options."""
        if self.responder.config.layout != "ecg-first":
            self.context.warn("answers are not ranked: the checkpoint's prompts have the question before the ECG")
            return None
        blind, features = self.responder.blind, self.responder.config.features
        shown = replace(item, codes=None if blind else item.codes, features=item.features if features else "")
        return rank_options(
            request, lambda texts: self.responder.option_scores(shown, [request.question], texts)[0].tolist()
        )

    def codes(self, dataset: str, record_id: str, reader: Reader | None = None) -> Codes:
        """The codes of a recording, from the cache if there is one.

        Raises:
            DataError: for a bad recording.
        """
        return self._codes.of(dataset, record_id, reader or Reader())


def shortened(prompt: str, what: str = "codes") -> str:
    """A prompt with the number of an ECG's codes in their place, to be read by people."""
    return _CODES.sub(lambda run: f"[{run.group().count('>')} {what}]", prompt)


def _rough_length(request: Request) -> int:
    """About how many tokens it takes; only the order counts."""
    return 320 * len(request.record_ids) + (len(request.question) + len(request.background)) // 3


def by_recording(requests: Sequence[Request]) -> list[Request]:
    """The requests with those about one recording next to each other, recordings in order of first appearance."""
    groups: dict[tuple[str, ...], list[Request]] = defaultdict(list)
    for request in requests:
        groups[(request.dataset, *request.record_ids)].append(request)
    return [request for group in groups.values() for request in group]


def shuffled_recordings(requests: Sequence[Request], seed: int) -> dict[str, str]:
    """Recording -> the recording shown instead: a seeded one-to-one exchange in which nobody gets an ECG of their own.

    Recordings are put in a random order with each patient's together and moved on by the largest number of recordings
    that one patient has, which leads out of every patient's block. The second ECG of a comparison counts as its own
    patient's where that patient is asked about too, or where the ECGs are consecutive ones of one patient.

    Raises:
        DataError: if one patient has more than half of the recordings.
    """
    patients: dict[str, list[str]] = defaultdict(list)
    owner = {request.record_ids[0]: request.cluster for request in requests}
    for request in requests:
        for record in request.record_ids[1:]:
            same = request.question_type.startswith("comparison_consecutive")
            owner.setdefault(record, request.cluster if same else f"recording {record}")
    for record, patient in owner.items():
        patients[patient].append(record)
    generator = random.Random(seed)
    order = sorted(patients)
    generator.shuffle(order)
    records = [record for patient in order for record in sorted(patients[patient])]
    step = max(map(len, patients.values()), default=0)
    if 2 * step > len(records):
        raise DataError(
            "ECGs cannot be shuffled between patients: one patient has more than half of them",
            where="ecg=shuffled",
            remedy="Ask about more patients (a larger --limit).",
        )
    return {record: records[(index + step) % len(records)] for index, record in enumerate(records)}

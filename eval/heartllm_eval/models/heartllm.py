"""A HeartLLM checkpoint; with `ecg=shuffled` or `ecg=none` the same under a control. Torch loads only here."""

from __future__ import annotations

import importlib
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from heartllm import __version__
from heartllm.errors import DataError, UsageError
from heartllm_eval.metrics.option_ranking import rank_options
from heartllm_eval.models.base import Context, Task, check_device
from heartllm_eval.models.batching import longest_first
from heartllm_eval.schema import Prediction, Request, digest
from heartllm_eval.suite import Reader

Codes = npt.NDArray[Any]  # (313,) codes; of other front-ends what their checkpoint's responder gives
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
        self._codes: dict[tuple[str, str, Reader], Codes | str] = {}

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
        prompts: Any = importlib.import_module("heartllm.language.prompts")
        item = self._item(request, task, {})
        if isinstance(item, str):
            return f"(not asked: {item})"
        config = self.responder.config
        codes = None if config.blind else item.codes
        features = item.features if config.features else ""
        text = str(prompts.prompt_text(features, codes, item.question, config.layout, self.responder.front.describe))
        what = "codes" if self.responder.front.width is None else "soft tokens"
        return _CODES.sub(lambda run: f"[{run.group().count('>')} {what}]", text)

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
        codes = None
        if self.ecg != "none":
            found = [self.codes(request.dataset, record, task.reader) for record in shown]
            bad = [part for part in found if isinstance(part, str)]
            if bad:
                return bad[0]
            codes = found[0] if len(found) == 1 else np.stack(cast("list[Codes]", found))
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

    def codes(self, dataset: str, record_id: str, reader: Reader | None = None) -> Codes | str:
        """The codes of a recording, from the cache if there is one; of a bad recording, what is wrong."""
        reader = reader or Reader()
        key = (dataset, record_id, reader)
        if key not in self._codes:
            try:
                self._codes[key] = self._encode(dataset, record_id, reader)
            except DataError as error:
                self._codes[key] = str(error)
                self.context.warn(f"recording {dataset}/{record_id} cannot be used: {error}")
        return self._codes[key]

    def _encode(self, dataset: str, record_id: str, reader: Reader) -> Codes:
        file = self._cache_file(dataset, record_id, reader)
        if file is not None and file.is_file():
            try:
                stored: Codes = np.load(file, allow_pickle=False)
                return stored
            except (OSError, ValueError, EOFError):
                file.unlink(missing_ok=True)  # cut off by a kill or a full disk; encode it again
        codes: Codes = self.responder.encode(self.context.workspace.read(dataset, record_id, reader))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{os.getpid()}.part.npy")
            np.save(part, codes)
            part.replace(file)
        return codes

    def _cache_file(self, dataset: str, record_id: str, reader: Reader) -> Path | None:
        if self.context.cache is None:
            return None
        # By what is in the codec and in the recording, so that checkpoints with the same codec share their codes; and
        # by the version that read it: resampling and the cut to length are code.
        content = self.context.workspace.recording_hash(dataset, record_id)
        name = digest(content, reader.length, reader.nan_policy, __version__, length=32)
        return self.context.cache / "codes" / digest(str(self.responder.codec_hash)) / f"{name}.npy"


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

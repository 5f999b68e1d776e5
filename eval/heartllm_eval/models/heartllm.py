"""A HeartLLM checkpoint; with `ecg=shuffled` or `ecg=none` the same under a control. Torch loads only here."""

from __future__ import annotations

import importlib
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import DataError, UsageError
from heartllm_eval.models.base import Context, Task
from heartllm_eval.schema import Prediction, Request, digest

Codes = npt.NDArray[np.int64]
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
        self.responder = _responder(Path(checkpoint), context.device, int(threads) if threads else None)
        self._codes: dict[tuple[str, str], Codes | str] = {}

    def describe(self) -> dict[str, Any]:
        """The checkpoint's content and what it is shown."""
        shown: dict[str, Any] = {
            "fingerprint": self.responder.fingerprint,
            "codec": self.responder.codec_hash,
            "ecg": self.ecg,
        }
        return {**shown, "seed": self.context.seed} if self.ecg == "shuffled" else shown

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Generates greedily, all questions of a recording in a row, so that one prefix serves them."""
        module: Any = importlib.import_module("heartllm.responder")
        donors = shuffled_recordings(task.requests, self.context.seed) if self.ecg == "shuffled" else {}
        pending = iter(by_recording(requests))
        while group := list(islice(pending, max(64, 4 * self.context.batch_size))):
            items, answered = [], []
            for request in group:
                record = request.record_ids[0]
                donor = donors.get(record, record)
                codes = None if self.ecg == "none" else self.codes(request.dataset, donor)
                if isinstance(codes, str):
                    yield Prediction(request.id, "", error=codes)
                    continue
                items.append(
                    module.ResponderItem(
                        recording_key=f"{request.dataset}/{record}@{donor}",
                        codes=codes,
                        question=request.question if request.kind == "qa" else None,
                        features=request.background,
                    )
                )
                answered.append(request)
            texts = self.responder.answer(items, max_new_tokens=task.max_new_tokens, batch_size=self.context.batch_size)
            for request, text in zip(answered, texts, strict=True):
                yield Prediction(request.id, text)

    def codes(self, dataset: str, record_id: str) -> Codes | str:
        """The codes (313,) of a recording, from the cache if there is one; of a bad recording, what is wrong."""
        key = (dataset, record_id)
        if key not in self._codes:
            try:
                self._codes[key] = self._encode(dataset, record_id)
            except DataError as error:
                self._codes[key] = str(error)
                self.context.warn(f"recording {dataset}/{record_id} cannot be used: {error}")
        return self._codes[key]

    def _encode(self, dataset: str, record_id: str) -> Codes:
        file = self._cache_file(dataset, record_id)
        if file is not None and file.is_file():
            try:
                stored: Codes = np.load(file, allow_pickle=False)
                return stored
            except (OSError, ValueError, EOFError):
                file.unlink(missing_ok=True)  # cut off by a kill or a full disk; encode it again
        workspace = self.context.workspace
        codes: Codes = self.responder.encode(workspace.dataset(dataset).read(workspace.entry(dataset, record_id)))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part.npy")
            np.save(part, codes)
            part.replace(file)
        return codes

    def _cache_file(self, dataset: str, record_id: str) -> Path | None:
        if self.context.cache is None:
            return None
        # By the codec's hash, so that checkpoints with the same codec share their codes.
        return self.context.cache / digest(str(self.responder.codec_hash)) / dataset / f"{digest(record_id)}.npy"


def by_recording(requests: Sequence[Request]) -> list[Request]:
    """The requests with those about one recording next to each other, recordings in order of first appearance."""
    groups: dict[tuple[str, ...], list[Request]] = defaultdict(list)
    for request in requests:
        groups[(request.dataset, *request.record_ids)].append(request)
    return [request for group in groups.values() for request in group]


def shuffled_recordings(requests: Sequence[Request], seed: int) -> dict[str, str]:
    """Recording -> the recording shown instead: a seeded one-to-one exchange in which nobody gets an ECG of their own.

    Recordings are put in a random order with each patient's together and moved on by the largest number of recordings
    that one patient has, which leads out of every patient's block.

    Raises:
        DataError: if one patient has more than half of the recordings.
    """
    patients: dict[str, list[str]] = defaultdict(list)
    for request in requests:
        if request.record_ids[0] not in patients[request.cluster]:
            patients[request.cluster].append(request.record_ids[0])
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

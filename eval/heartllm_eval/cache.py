"""Answers kept between runs, keyed by everything that decides them: so the cache cannot tell of another model.

DIR/answers/KEY OF THE MODEL/*.jsonl, one line an answer: {"key": ..., "text": ..., "option_scores": ...}. Every process
appends to a file of its own, so several runs may share a folder; a line that a kill cut off is passed over.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from heartllm.errors import HeartLLMError
from heartllm_eval import provenance
from heartllm_eval.models.base import Adapter, Task
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Prediction, Request, digest, dumps, option_scores_from_json

LENGTH = 32  # hex digits of a key


class AnswerCache:
    """Answers of one model.

    Args:
        folder: of `--use_cache`.
        kind: the adapter's name.
        adapter: the model. It takes part if it has an `answers_version` (a number that its author raises when it would
            answer the same request otherwise) that is not None.
        description: what tells this model from another; it holds hashes of the model's content.
        workspace: gives the hashes of recordings: an id may stand for another recording in another copy of a dataset.
    """

    def __init__(
        self, folder: Path | None, kind: str, adapter: Adapter, description: Mapping[str, Any], workspace: Workspace
    ) -> None:
        version = getattr(adapter, "answers_version", None)
        self.workspace = workspace
        self.hits = 0
        self._answers: dict[str, dict[str, Any]] = {}
        self._stream: IO[bytes] | None = None
        self._folder: Path | None = None
        if folder is not None and version is not None:
            program = provenance.versions()
            parts = [kind, version, provenance.code_hash(), program, dict(description)]
            told = json.dumps(parts, sort_keys=True, default=str)
            self._folder = folder / "answers" / digest(told, length=LENGTH)

    def __enter__(self) -> AnswerCache:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self._folder.glob("*.jsonl")):
                self._read(path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def _read(self, path: Path) -> None:
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
                if isinstance(row["key"], str) and isinstance(row["text"], str):
                    self._answers[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                continue

    def key(self, request: Request, task: Task) -> str | None:
        """Of everything that a model is shown or told; None where the request cannot be cached."""
        if self._folder is None:
            return None
        try:
            recordings = [self.workspace.recording_hash(request.dataset, record) for record in request.record_ids]
        except HeartLLMError:  # let the model say what is wrong with the recording
            return None
        shown = (request.kind, request.question, request.background, *request.options)
        how = (str(task.max_new_tokens), str(task.score_options), repr(task.reader))
        return digest(*recordings, "|", *shown, "|", *how, length=LENGTH)

    def find(self, request: Request, task: Task) -> Prediction | None:
        """The stored answer to a request."""
        key = self.key(request, task)
        row = self._answers.get(key) if key else None
        if row is None:
            return None
        try:
            ranked = row.get("option_scores")
            scores = option_scores_from_json(ranked) if ranked else None
        except ValueError:
            return None
        self.hits += 1
        return Prediction(request.id, row["text"], None, scores)

    def keep(self, request: Request, task: Task, prediction: Prediction) -> None:
        """Stores an answer; failures are asked again next time."""
        key = self.key(request, task)
        if key is None or self._folder is None or prediction.error or key in self._answers:
            return
        row = {"key": key, "text": prediction.text, "option_scores": prediction.option_scores}
        if self._stream is None:
            self._stream = (self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}.jsonl").open("ab")
        self._stream.write(dumps(row).encode("utf-8") + b"\n")
        self._stream.flush()
        self._answers[key] = row

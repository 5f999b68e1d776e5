"""samples.jsonl: one line a sample, written as soon as it is there; a killed run loses nothing but its last line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from heartllm.errors import DataError
from heartllm_eval.schema import Sample, dumps, sample_from_json

SAMPLES_FILE = "samples.jsonl"


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a file; a half-written last line is left out.

    Raises:
        DataError: for a broken line that is not the last.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield sample_from_json(json.loads(line.decode("utf-8")))
            except (ValueError, TypeError, AttributeError) as error:
                place = f"{path}, line {number}"
                raise DataError(
                    f"not a sample ({error})", where=place, remedy="Remove the line; the same command asks it again."
                ) from None


class SampleLog:
    """An open samples.jsonl: what it held when it was opened, and a place to append.

    Args:
        path: the file; made if absent. A half-written last line is cut off before anything is appended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, Sample] = {}
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> SampleLog:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _cut_half_line(self.path)
            for sample in read_samples(self.path):
                self.done.setdefault(sample.request.id, sample)
        self._stream = self.path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, sample: Sample) -> None:
        """Writes one line and hands it to the operating system, so that it outlives this process."""
        assert self._stream is not None, "the log is open only inside `with`"
        self._stream.write(dumps(sample).encode("utf-8") + b"\n")
        self._stream.flush()
        self.done[sample.request.id] = sample


def _cut_half_line(path: Path) -> None:
    with path.open("rb+") as stream:
        size = stream.seek(0, 2)
        keep = size
        while keep > 0:
            start = max(0, keep - 65536)
            stream.seek(start)
            newline = stream.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < size:
            stream.truncate(keep)

"""samples.jsonl: one line a sample, written as soon as it is there; a killed run loses nothing but its last line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from heartllm.errors import DataError
from heartllm.texts import check_plain, parse_json
from heartllm.writing import write_whole
from heartllm_eval.schema import Sample, dumps, sample_from_json

SAMPLES_FILE = "samples.jsonl"


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a file; a half-written last line is left out.

    Raises:
        DataError: for a broken line that is not the last, and a path that is no file.
        FileNotFoundError: if it has gone.
    """
    try:
        check_plain(path)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Remove it.") from None
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield sample_from_json(parse_json(line.decode("utf-8")))
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                place = f"{path}, line {number}"
                raise DataError(
                    f"not a sample ({error})", where=place, remedy="Remove the line; the same command asks it again."
                ) from None


def shard_file(folder: Path, rank: int) -> Path:
    """Where process `rank` appends: samples.jsonl, samples.1.jsonl, ..."""
    return folder / (SAMPLES_FILE if rank == 0 else f"samples.{rank}.jsonl")


def shards(folder: Path) -> list[Path]:
    """The sample files of all processes, of this start of the run or an earlier one."""
    first = [folder / SAMPLES_FILE] if (folder / SAMPLES_FILE).exists() else []
    return [*first, *sorted(folder.glob("samples.*.jsonl"))]


def shard_size(folder: Path) -> int:
    """Bytes in all sample files: whether anything was appended."""
    return sum(path.stat().st_size for path in shards(folder))


def answered(folder: Path) -> dict[str, Sample]:
    """Id -> sample over all processes' files; of several of one id the first that is no failure.

    samples.jsonl comes last: a file that process 0 has just removed was merged into it.
    """
    found: dict[str, Sample] = {}
    for path in reversed(shards(folder)):
        with suppress(FileNotFoundError):
            for sample in read_samples(path):
                known = found.get(sample.request.id)
                if known is None or (known.prediction.error and not sample.prediction.error):
                    found[sample.request.id] = sample
    return found


def answers_held(folder: Path) -> int:
    """How many requests have an answer there that is no failure."""
    return sum(sample.prediction.error is None for sample in answered(folder).values())


def merge(folder: Path, samples: Mapping[str, Sample], order: Sequence[str]) -> None:
    """Writes samples.jsonl in `order` and removes the other processes' files; a kill leaves all or more of it.

    The file is then the same whatever the order of the answers, the count of processes and the kills between.
    """
    target = folder / SAMPLES_FILE
    lines = b"".join(dumps(samples[key]).encode("utf-8") + b"\n" for key in order)
    if not target.exists() or target.read_bytes() != lines:
        write_whole(target, lines)
    for path in shards(folder):
        if path != target:
            path.unlink()


class SampleLog:
    """An open samples file: what is answered already, by any process, and a place to append.

    Args:
        folder: of one system and task; made if absent. A half-written last line is cut off before anything is appended.
        rank: the process that appends.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank, self.path = folder, rank, shard_file(folder, rank)
        self.done: dict[str, Sample] = {}
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> SampleLog:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            _cut_half_line(self.path)
        self.done = answered(self.folder)
        if self.rank == 0:  # others make theirs with the first answer: process 0 may have merged already
            self._stream = self.path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def append(self, sample: Sample) -> None:
        """Writes one line and hands it to the operating system, so that it outlives this process."""
        if self._stream is None:
            self._stream = self.path.open("ab")
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

"""ECGs as codes: what a checkpoint's front-end makes of recordings, kept for a run and in the cache folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from heartllm import __version__
from heartllm.errors import DataError
from heartllm.untrusted import read_array
from heartllm_eval.models.base import Context
from heartllm_eval.schema import Request, digest
from heartllm_eval.suite import Reader

Codes = npt.NDArray[Any]  # (313,) codes; of other front-ends what their checkpoint gives


class Encoder(Protocol):
    """What encodes a recording (a responder, a speller), and the hash of its front-end."""

    @property
    def codec_hash(self) -> str: ...

    def encode(self, recording: Any) -> Codes: ...


class ECGCodes:
    """The codes of recordings, each encoded once."""

    def __init__(self, context: Context, encoder: Encoder) -> None:
        self.context, self.encoder = context, encoder
        self._kept: dict[tuple[str, str, Reader], Codes | DataError] = {}

    def of(self, dataset: str, record_id: str, reader: Reader) -> Codes:
        """The codes of a recording, from the cache if there is one.

        Raises:
            DataError: for a bad recording, each time; the first time the user is told, too.
        """
        key = (dataset, record_id, reader)
        if key not in self._kept:
            try:
                self._kept[key] = self._encode(*key)
            except DataError as error:
                self._kept[key] = error
                self.context.warn(f"recording {dataset}/{record_id} cannot be used: {error.without_folder()}")
        found = self._kept[key]
        if isinstance(found, DataError):
            raise found
        return found

    def _encode(self, dataset: str, record_id: str, reader: Reader) -> Codes:
        file = self._cache_file(dataset, record_id, reader)
        if file is not None and file.is_file():
            try:
                stored: Codes = read_array(file)
                return stored
            except (OSError, ValueError):
                file.unlink(missing_ok=True)  # cut off by a kill or a full disk; encode it again
        codes: Codes = self.encoder.encode(self.context.workspace.read(dataset, record_id, reader))
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
        return self.context.cache / "codes" / digest(str(self.encoder.codec_hash)) / f"{name}.npy"


def together(
    codes: Callable[[str, str, Reader], Codes], request: Request, shown: Sequence[str], reader: Reader
) -> Codes:
    """The codes (N,) of the ECG that a request shows, or (E, N) of several.

    Raises:
        DataError: for a bad recording.
    """
    found = [codes(request.dataset, record, reader) for record in shown]
    return found[0] if len(found) == 1 else np.stack(found)

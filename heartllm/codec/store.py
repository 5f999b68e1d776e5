"""The token store: a dataset's recordings as codes, written once and read by memory map.

    manifest.json   schema, codec hash, dataset, data hash, shape, record keys in order, what was left out and why
    codes.npy       (R, views, N) uint16

A view is one tokenisation: view 0 of the recording as it is, further ones shifted by part of a code and with a slightly
other gain, so that training sees the codes that the same ECG might have had.
Training and tuning read this folder only; a waveform is never opened again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import CheckpointError, DataError

SCHEMA = 1
REQUIRED = {"schema", "codec", "dataset", "data", "shape", "keys"}
Codes = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class TokenStore:
    """An opened store. `codes` is (R, views, N) uint16, memory-mapped; `keys` are record ids, one a row."""

    path: Path
    codes: Codes
    manifest: dict[str, Any]
    rows: dict[str, int] = field(repr=False, default_factory=dict)

    @classmethod
    def open(cls, path: Path, codec_hash: str | None = None) -> TokenStore:
        """Opens the store at `path`.

        Raises:
            CheckpointError: if it is incomplete, altered, or was made by another codec than `codec_hash`.
        """
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            codes = np.load(path / "codes.npy", mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise CheckpointError(
                f"is not a whole token store ({error})", where=path, remedy="Run `heartllm tokenize` again."
            ) from None
        if not isinstance(manifest, dict) or not manifest.keys() >= REQUIRED:
            raise CheckpointError(
                "is not a token store's manifest",
                where=path / "manifest.json",
                remedy="Run `heartllm tokenize` again.",
            )
        if (
            manifest["schema"] != SCHEMA
            or list(codes.shape) != manifest["shape"]
            or len(manifest["keys"]) != len(codes)
        ):
            raise CheckpointError("manifest and codes disagree", where=path, remedy="Run `heartllm tokenize` again.")
        if codec_hash is not None and manifest["codec"] != codec_hash:
            raise CheckpointError(
                f"was made by codec {manifest['codec'][:12]}, not {codec_hash[:12]}",
                where=path,
                remedy="Run `heartllm tokenize` with the codec in use.",
            )
        return cls(path, codes, manifest, {key: row for row, key in enumerate(manifest["keys"])})

    def __len__(self) -> int:
        return len(self.codes)

    def of(self, key: str, view: int = 0) -> Codes:
        """The codes (N,) of one recording."""
        try:
            return self.codes[self.rows[key], view]
        except KeyError:
            raise DataError(f"no recording {key!r}", where=self.path, remedy="Tokenise its dataset first.") from None

    def keys(self) -> Iterator[str]:
        return iter(self.manifest["keys"])


def fingerprint(parts: Sequence[object]) -> str:
    """SHA-256 over the text of `parts`."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()

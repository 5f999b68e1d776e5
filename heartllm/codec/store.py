"""The token store: a dataset's recordings as a front-end's output, written once and read by memory map.

    manifest.json   schema, front-end hash, dataset, data hash, what is held, shape, record keys in order, how many were
                    left out; SHA-256 of all this and of the file below, which stores of older versions lack
    codes.npy       (R, views, N) uint16, FILL behind the last code of an ECG that has fewer; or, of a continuous
    values.npy      (R, views, N, width) float16                                               front-end,

A view is one tokenisation: view 0 of the recording as it is, further ones shifted by part of a code and with a slightly
other gain, so that training sees the codes that the same ECG might have had.
Training and tuning read this folder only; a waveform is never opened again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import CheckpointError, DataError
from heartllm.manifests import seal
from heartllm.texts import read_json
from heartllm.untrusted import inside, read_array

SCHEMA = 1
REQUIRED = {"schema", "codec", "dataset", "data", "shape", "keys"}
FILL = 0xFFFF
Codes = npt.NDArray[np.uint16]
Values = npt.NDArray[np.float16]
TYPES: dict[str, tuple[Any, int]] = {"codes": (np.uint16, 3), "values": (np.float16, 4)}  # what is held -> type, axes


@dataclass(frozen=True)
class TokenStore:
    """An opened store.

    Attributes:
        codes: (R, views, N) uint16 codes or (R, views, N, width) float16 values, memory-mapped.
        rows: record id -> row.
    """

    path: Path
    codes: Codes | Values
    manifest: dict[str, Any]
    rows: dict[str, int] = field(repr=False, default_factory=dict)

    @classmethod
    def open(cls, path: Path, codec_hash: str | None = None) -> TokenStore:
        """Opens the store at `path`.

        Raises:
            CheckpointError: if it is incomplete, altered, or was made by another front-end than `codec_hash`.
        """
        again = "Run `heartllm tokenize` again."
        try:
            manifest = read_json(inside(path, "manifest.json"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"is not a whole token store ({error})", where=path, remedy=again) from None
        held = manifest.get("holds", "codes") if isinstance(manifest, dict) else None
        if not isinstance(manifest, dict) or not manifest.keys() >= REQUIRED or held not in list(TYPES):
            raise CheckpointError("is not a token store's manifest", where=path / "manifest.json", remedy=again)
        try:
            codes = read_array(inside(path, f"{held}.npy"), mmap="r")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"is not a whole token store ({error})", where=path, remedy=again) from None
        if (
            manifest["schema"] != SCHEMA
            or list(codes.shape) != manifest["shape"]
            or not isinstance(manifest["keys"], list)
            or not all(isinstance(key, str) for key in manifest["keys"])
            or len(set(manifest["keys"])) != len(codes)
            or len(manifest["keys"]) != len(codes)
            or (codes.dtype, codes.ndim) != TYPES[held]
        ):
            raise CheckpointError("manifest and codes disagree", where=path, remedy=again)
        if manifest.get("sha256") not in (None, seal(manifest, [path / f"{held}.npy"])):
            raise CheckpointError(
                "was altered or damaged: the hash in manifest.json is another one", where=path, remedy=again
            )
        if codec_hash is not None and manifest["codec"] != codec_hash:
            raise CheckpointError(
                f"was made by front-end {str(manifest['codec'])[:12]}, not {codec_hash[:12]}",
                where=path,
                remedy="Run `heartllm tokenize` with the front-end in use.",
            )
        return cls(path, codes, manifest, {key: row for row, key in enumerate(manifest["keys"])})

    def __len__(self) -> int:
        return len(self.codes)

    def of(self, key: str, view: int = 0) -> Codes | Values:
        """The codes (N,) or values (N, width) of one recording."""
        try:
            return filled(self.codes[self.rows[key], view])
        except KeyError:
            raise DataError(f"no recording {key!r}", where=self.path, remedy="Tokenise its dataset first.") from None

    def keys(self) -> Iterator[str]:
        return iter(self.manifest["keys"])


def filled(codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One ECG's codes without what fills them up behind; values as they are."""
    return codes[codes != FILL] if codes.dtype == np.uint16 else codes


def ecg_of(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One stored ECG as a prompt takes it: codes (N,) int64 without filling, or values (N, width) float32."""
    found = filled(stored)
    return found.astype(np.int64 if found.dtype == np.uint16 else np.float32)


def fingerprint(parts: Sequence[object]) -> str:
    """SHA-256 over the text of `parts`."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()

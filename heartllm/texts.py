"""Text and JSON files of anybody: read in one way, and wrong in one way (`ValueError`), whatever they hold; hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from heartllm.plain import well_formed

LONGEST_NAME = 255  # bytes of a file's name that file systems take
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def check_plain(path: Path) -> None:
    """Raises OSError where the path is there but no file: of a pipe, reading might never come back."""
    if not path.is_file() and path.exists():
        raise (
            IsADirectoryError(errno.EISDIR, "Is a directory")
            if path.is_dir()
            else OSError(errno.EINVAL, "No plain file")
        )


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a file.

    Raises:
        ValueError: if it is not UTF-8.
        OSError: if it cannot be read, or is no plain file.
    """
    check_plain(path)
    return path.read_text(encoding=encoding)


def read_json(path: Path) -> Any:
    """What a JSON file holds; half a character, which JSON can hold ("\\ud83d"), becomes U+FFFD.

    Raises:
        ValueError: if it is no JSON, not UTF-8, or nested deeper than anything that is meant to be read.
        OSError: if it cannot be read, or is no plain file.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """What a JSON text holds; see `read_json`."""
    try:
        value = json.loads(text)
        return mended(value) if _HALF.search(text) else value
    except RecursionError:
        raise ValueError("nested too deep") from None


def mended(value: Any) -> Any:
    """A JSON value whose texts are all well-formed."""
    if isinstance(value, str):
        return value if value.isascii() else well_formed(value)
    if isinstance(value, dict):
        return {mended(key): mended(part) for key, part in value.items()}
    return [mended(part) for part in value] if isinstance(value, list) else value


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces.

    Raises:
        OSError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()

"""Which files a finished folder holds, with their hashes: a checkpoint is whole once its manifest is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from heartllm.errors import CheckpointError, absent
from heartllm.texts import hash_file, parse_json, read_text
from heartllm.untrusted import inside
from heartllm.writing import remove_folder, sync, write_whole

SCHEMA = 1
MANIFEST = "manifest.json"
WORK = ("run", "examples", "waveforms")  # of a stage that is not finished: its training's state, and what it reads


def seal(manifest: Mapping[str, Any], files: Iterable[Path]) -> str:
    """SHA-256 of a manifest that tells of itself, under "sha256", and of the files that it describes."""
    told = {name: value for name, value in manifest.items() if name != "sha256"}
    parts = [json.dumps(told, sort_keys=True), *(hash_file(path) for path in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    """What a manifest covers: all but itself, notes (.md), hidden files, an unfinished stage's folders, and a blind
    control in a folder inside."""
    found = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        aside = parts[0] in WORK or any(part.startswith((".", "blind")) for part in parts)
        if not aside and path.is_file() and path.name != MANIFEST and path.suffix != ".md":
            found.append(path)
    return sorted(found)


def write_manifest(folder: Path) -> str:
    """Hashes the folder's files into `manifest.json`; returns the hash of the manifest, which names the checkpoint.

    From then on the folder is finished, so its files are on the disk before.
    """
    paths = _files(folder)
    for path in paths:
        sync(path)
    hashes = {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}
    text = json.dumps({"schema": SCHEMA, "files": hashes}, indent=1)
    write_whole(folder / MANIFEST, text)
    return hashlib.sha256(text.encode()).hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether a stage has finished the folder.

    Raises:
        CheckpointError: if it is not what was written, see `verify`.
    """
    if not (folder / MANIFEST).exists():
        return False
    verify(folder)
    return True


def clear_work(folder: Path) -> None:
    """Removes what a finished stage needs no more: after its manifest, or a kill between would lose the training."""
    for name in WORK:
        remove_folder(folder / name)


def verify(folder: Path) -> str:
    """Checks every file of a checkpoint against its manifest; returns the checkpoint's hash.

    Raises:
        CheckpointError: naming the first file that is missing, altered, or lies outside the folder.
    """
    try:
        text = read_text(inside(folder, MANIFEST))
        hashes: dict[str, str] = dict(parse_json(text)["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        remedy = "Name a folder that `heartllm tokenizer`, `pretrain` or `tune` has finished."
        error = CheckpointError("is not a checkpoint (no readable manifest.json)", where=folder, remedy=remedy)
        raise (error if folder.is_dir() else absent(error)) from None
    for path in _files(folder):  # what loading reads may not come unseen
        name = path.relative_to(folder).as_posix()
        read = path.parent == folder / "text" or (path.parent == folder and path.suffix in (".toml", ".safetensors"))
        if read and name not in hashes:
            raise CheckpointError("is not named in manifest.json", where=path, remedy="Remove it, or fetch again.")
    for name, expected in hashes.items():
        path = inside(folder, name)
        if not path.is_file():
            raise CheckpointError("is missing", where=folder / name, remedy="Fetch the checkpoint again.")
        if hash_file(path) != expected:
            raise CheckpointError(
                "does not have the hash that manifest.json gives", where=folder / name, remedy="Fetch it again."
            )
    return hashlib.sha256(text.encode()).hexdigest()

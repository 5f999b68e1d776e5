"""A case is a few small files, as bytes by name below a folder; some are no files but links, folders or pipes."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Special:
    """What stands in a file's place."""

    kind: Literal["link", "folder", "pipe"]
    target: str = ""


Files = dict[str, "bytes | Special"]


def write(files: Files, folder: Path) -> None:
    """Writes a case below `folder`, which must not exist yet."""
    folder.mkdir()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.kind == "link":
            path.symlink_to(content.target)
        elif content.kind == "folder":
            path.mkdir(exist_ok=True)
        else:
            os.mkfifo(path)


def collect(folder: Path) -> Files:
    """The files below a folder, as a case."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def listing(folder: Path) -> dict[str, int]:
    """Everything below a folder with its size: what a reader must leave as it was."""
    found: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found[entry.name] = -1
                found.update((f"{entry.name}/{name}", size) for name, size in listing(Path(entry.path)).items())
            else:
                found[entry.name] = entry.stat(follow_symlinks=False).st_size
    return found


def remove(folder: Path) -> None:
    """Removes a case's folder."""
    shutil.rmtree(folder)

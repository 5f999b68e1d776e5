"""Files that are there whole or not at all: written by another name beside, synced, and renamed.

A kill, a full disk or a power cut leaves what was there before, and at most a hidden `.NAME.part` that the next writer
replaces. Whoever writes holds the folder (`heartllm.locks`), so that the other name need not be unique.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write` on a temporary name, syncs it and renames it: a reader sees the old or the new, never a half.

    What is no file, such as /dev/stdout, is written to as it is.
    """
    if path.exists() and not path.is_file():
        write(path)
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with named(path):
            write(part)
            sync(part)
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Inside, an error of the system names the file that was to be written: a full disk is told without it."""
    try:
        yield
    except OSError as error:
        # numpy counts what was written, and does not say why that was not all
        reason = error.strerror or ("not all of it could be written" if "written" in str(error) else str(error))
        raise OSError(error.errno, reason, str(path)) from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a text, as UTF-8 and with line ends as they are, or bytes."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    write_atomically(path, lambda part: part.write_bytes(data))


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes texts one after the other, none of which is kept."""

    def save(part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as stream:
            stream.writelines(lines)

    write_atomically(path, save)


def write_array(path: Path, values: npt.NDArray[Any]) -> None:
    """Writes one array as `.npy`, whatever the file is called."""
    import numpy as np  # scoring predictions writes texts alone, and starts without it

    def save(part: Path) -> None:
        with part.open("wb") as stream:
            np.save(stream, values)

    write_atomically(path, save)


def reserve_array(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[Any]]:
    """A new `.npy` file, mapped for writing. Its space is taken before: a disk that becomes full under a mapped file
    kills the process without a word (SIGBUS)."""
    import numpy as np

    with named(path):
        values: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("rb+") as stream:
                os.posix_fallocate(stream.fileno(), 0, max(1, path.stat().st_size))
    return values


def sync(path: Path) -> None:
    """Has the system write a file's content to its disk."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def remove_folder(path: Path) -> None:
    """Removes a folder and all in it; by another name first, so that none is ever found with a part of its files."""
    gone = path.with_name(f".{path.name}.gone")
    with suppress(FileNotFoundError):  # another process that has found the same leftovers removes them, too
        if gone.exists():
            shutil.rmtree(gone)
        if path.exists():
            path.replace(gone)
            shutil.rmtree(gone)

"""Files of strangers, opened so that they can neither run anything nor take more memory than they bring along.

A header is a claim: `.npy` may announce 10^12 numbers and bring none, `.npz` may unpack a kilobyte into a terabyte, a
safetensors header may claim any length. Each claim is held against the file's size, or a limit, before anything is
allocated. `torch.save` files are read with `weights_only=True`. Nothing here imports torch before it is used.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from heartllm.errors import CheckpointError, DataError, UsageError, absent
from heartllm.texts import LONGEST_NAME, check_plain

SAFE_TORCH = (2, 6)  # before it, weights_only could be got around (CVE-2025-32434)
FETCH = "Fetch the file again from where it was published."
LARGEST_UNPACKED = 1 << 30  # bytes that all arrays of an .npz may take together
LONGEST_TOLD = 2000  # characters of a text in a pickle: tensors' names are shorter
LARGEST_HEADER = 100 << 20  # bytes of a safetensors header; the library's own limit

Array = npt.NDArray[Any]


def inside(folder: Path, name: str) -> Path:
    """The path of `name` below `folder`, links followed.

    Raises:
        CheckpointError: if it lies outside.
    """
    root = folder.resolve()
    if any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in Path(name).parts):
        raise CheckpointError(f"{name[:80]!r}... is longer than any name", where=folder, remedy="Do not use it.")
    try:
        path = (root / name.replace("\0", "?")).resolve()
    except (OSError, RuntimeError):  # links in a circle, a name longer than any
        raise CheckpointError(f"{name!r} cannot be followed", where=folder, remedy="Do not use it.") from None
    if not path.is_relative_to(root):
        raise CheckpointError(f"{name!r} leads outside the folder", where=folder, remedy="Do not use it.")
    return path


def read_array(path: Path, *, mmap: Literal["r"] | None = None) -> Array:
    """One array of numbers from `.npy`; with `mmap`, mapped from disk.

    Raises:
        ValueError: if the file is none, holds objects, or less than its header says.
        OSError: if it cannot be read.
    """
    check_plain(path)
    with path.open("rb") as stream:
        _check_claim(stream, path.stat().st_size)
    found: Array = np.load(path, mmap_mode=mmap, allow_pickle=False)
    return found


def read_arrays(path: Path, limit: int = LARGEST_UNPACKED) -> dict[str, Array]:
    """The arrays of an `.npz` by name, if they take no more than `limit` bytes unpacked.

    Raises:
        ValueError: if the file is none, holds objects, is damaged, or unpacks into more.
        OSError: if it cannot be read.
    """
    found: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > limit:
                raise ValueError(f"it would unpack into more than {limit >> 20:,} MiB")
            for member in members:
                with archive.open(member) as stream:  # gives no more than `file_size` bytes, whatever is packed
                    content = io.BytesIO(stream.read())
                _check_claim(content, member.file_size)
                content.seek(0)
                array: Array = np.lib.format.read_array(content, allow_pickle=False)
                found[member.filename.removesuffix(".npy")] = array
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
        raise ValueError(f"no whole .npz file ({error})") from None
    return found


def _check_claim(stream: IO[bytes], size: int) -> None:
    """Raises ValueError where the header of an `.npy` stream of `size` bytes is none, or claims more than is there."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} of .npy is unknown")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(stream)
    except ValueError:
        raise
    except Exception as error:  # a Python literal, whose parser may raise anything
        raise ValueError(f"its header is not understood ({type(error).__name__})") from None
    if dtype.hasobject:
        raise ValueError("it holds objects, which reading would have to execute")
    if any(part < 0 for part in shape) or math.prod(shape) * dtype.itemsize > size - stream.tell():
        raise ValueError(f"its header says {list(shape)} of {dtype}, the file holds {size:,} bytes")


def read_safetensors_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, from the header of a safetensors file; no tensor is read.

    Raises:
        ValueError: if the file is none, or holds less than its header says.
        OSError: if it cannot be read.
    """
    check_plain(path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
        if length > min(LARGEST_HEADER, size - 8):
            raise ValueError("its header is longer than the file")
        try:
            header = json.loads(stream.read(length))
            parts = {name: part for name, part in header.items() if name != "__metadata__"}
            shapes = {name: tuple(int(axis) for axis in part["shape"]) for name, part in parts.items()}
            end = max((int(part["data_offsets"][1]) for part in parts.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
            raise ValueError("its header is not understood") from None
    if end > size - 8 - length or any(axis < 0 for shape in shapes.values() for axis in shape):
        raise ValueError("it holds less than its header says")
    return shapes


def read_object(path: Path, *, mmap: bool = True) -> Any:
    """What `torch.save` wrote, on the CPU: tensors, numbers, texts, lists and dictionaries only.

    Args:
        mmap: map the tensors from disk, where the file allows it. Else all is read, and first held against the file's
            checksums, which torch does not look at.

    Raises:
        CheckpointError: if the file is absent, damaged, or holds anything that would have to be executed.
        UsageError: if the installed torch cannot be trusted to refuse such a file.
    """
    import torch

    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < SAFE_TORCH:
        raise UsageError(
            f"torch {torch.__version__} can be made to execute what a file of another person holds (CVE-2025-32434)",
            where=path,
            remedy="Install a newer one: pip install 'torch>=2.6'",
        )
    if not path.is_file():
        raise absent(CheckpointError("no such file", where=path, remedy="Check the path."))
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            _refuse_compressed(path)
            _refuse_long_names(path)
            if not mmap:
                _check_sums(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipped)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise CheckpointError(
                "holds something other than tensors, which loading would have to execute",
                where=path,
                remedy="Do not use it, unless whoever wrote it can be trusted; a state dict alone is enough.",
            ) from None
        raise CheckpointError("is damaged or no file of torch.save", where=path, remedy=FETCH) from None
    except Exception:  # a damaged or hostile file can make the reader raise anything
        raise CheckpointError("is damaged or no file of torch.save", where=path, remedy=FETCH) from None


def _check_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise ValueError("a checksum does not fit")


def _refuse_compressed(path: Path) -> None:
    """`torch.save` stores and never packs: a packed member is none of its, and may unpack into anything."""
    with zipfile.ZipFile(path) as archive:
        packed = next((part for part in archive.infolist() if part.compress_type != zipfile.ZIP_STORED), None)
    if packed is not None:
        raise CheckpointError(f"holds packed data ({packed.filename[:80]})", where=path, remedy=FETCH)


def _refuse_long_names(path: Path) -> None:
    """A class that is not allowed is told by torch after a search that takes time quadratic in its name."""
    with zipfile.ZipFile(path) as archive:
        pickles = [archive.read(part) for part in archive.infolist() if part.filename.endswith("data.pkl")]
    for content in pickles:
        for _, told, _ in pickletools.genops(content):
            if isinstance(told, str) and len(told) > LONGEST_TOLD:
                raise CheckpointError("names something of thousands of letters", where=path, remedy=FETCH)

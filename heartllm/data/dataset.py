"""What a dataset is, and how one is found by name below a data root.

A data root is a folder that holds datasets as their authors publish them:

    ptbxl/  ecgqa/ptbxl/  reports/ptbxl/  mimic/  synthetic-a/  synthetic-b/
    other_sites/georgia/  other_sites/chapman-ningbo/  other_sites/cpsc2018/
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from heartllm.data.records import SPLITS, Entry
from heartllm.errors import DataError, UsageError, absent

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

DATA_VARIABLE = "HEARTLLM_DATA"
OTHER_SITES = ("georgia", "chapman-ningbo", "cpsc2018")
# Dataset name -> its folder below the data root.
FOLDERS = {
    "ptbxl": "ptbxl",
    "mimic": "mimic",
    "synthetic-a": "synthetic-a",
    "synthetic-b": "synthetic-b",
    **{site: f"other_sites/{site}" for site in OTHER_SITES},
}
DATASETS = tuple(FOLDERS)


class Dataset(Protocol):
    """Recordings with metadata; waveforms stay on disk until `read`."""

    name: str
    root: Path

    def entries(self, split: str | None = None) -> list[Entry]:
        """The entries of one split ("train", "valid", "test"), or of all recordings."""
        ...

    def iter_entries(self, split: str | None = None) -> Iterator[Entry]:
        """The same, one at a time, for datasets too large to hold."""
        ...

    def read(self, entry: Entry, **options: Any) -> Recording:
        """The entry's waveform at 500 Hz, canonical leads, mV; options go to `heartllm.ecg.read_recording`."""
        ...


@dataclass
class FileDataset:
    """A dataset whose entries come from a function over its folder; the published datasets are all of this kind.

    Attributes:
        name: the dataset's name, which its entries carry as `source`.
        root: its folder.
        load: yields all entries, in the published order.
    """

    name: str
    root: Path
    load: Callable[[], Iterator[Entry]]
    _entries: list[Entry] | None = field(default=None, repr=False)

    def iter_entries(self, split: str | None = None) -> Iterator[Entry]:
        """The entries of a split, streamed from the tables unless they are held already."""
        check_split(split)
        source = self.load() if self._entries is None else iter(self._entries)
        return (entry for entry in source if split is None or entry.split == split)

    def entries(self, split: str | None = None) -> list[Entry]:
        """The entries of a split (a new list); the tables are read once."""
        check_split(split)
        if self._entries is None:
            self._entries = list(self.load())
        return [entry for entry in self._entries if split is None or entry.split == split]

    def read(self, entry: Entry, **options: Any) -> Recording:
        """Reads an entry's waveform; see `heartllm.ecg.read_recording` for options and errors."""
        from heartllm.ecg import read_recording

        return read_recording(entry.path, **{"source": self.name, **options})


def check_split(split: str | None) -> None:
    """Raises `UsageError` for a split that does not exist."""
    if split is not None and split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", remedy=did_you_mean(split, SPLITS), where="--split")


def did_you_mean(given: str, known: tuple[str, ...]) -> str:
    """The remedy for a misspelt choice: the nearest known one, and all of them."""
    near = difflib.get_close_matches(given.lower().replace("_", "-"), known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Choose one of: {', '.join(known)}."


def data_root_from(option: Path | None = None) -> Path:
    """The data root: the option where given, else the environment variable HEARTLLM_DATA.

    Raises:
        UsageError: neither is given.
        DataError: the folder does not exist.
    """
    value = option if option is not None else os.environ.get(DATA_VARIABLE)
    if not value:
        raise UsageError(
            "no data root is given",
            remedy=f"Pass --data_root FOLDER or set {DATA_VARIABLE}; the folder holds ptbxl/, ecgqa/, ...",
        )
    root = Path(value).expanduser().absolute()
    if not root.is_dir():
        place = "--data_root" if option is not None else DATA_VARIABLE
        raise absent(DataError("this folder does not exist", remedy=f"Correct {place}.", where=root))
    return root


def open_dataset(name: str, data_root: Path) -> Dataset:
    """Opens a dataset by name.

    Args:
        name: one of `DATASETS`.
        data_root: the folder that holds it, laid out as the module's docstring says.

    Raises:
        UsageError: no dataset has this name.
        DataError: its folder is not there.
    """
    if name not in FOLDERS:
        raise UsageError(f"unknown dataset {name!r}", remedy=did_you_mean(name, DATASETS), where="dataset")
    data_root = Path(data_root)
    root = data_root / FOLDERS[name]
    if not root.is_dir():
        raise DataError(
            f"the dataset {name!r} is not here",
            remedy=f"Put it there, or let --data_root or {DATA_VARIABLE} name the folder that holds {FOLDERS[name]}/.",
            where=root,
        )
    if name in ("ptbxl", "synthetic-a"):
        from heartllm.data.ptbxl import open_ptbxl

        return open_ptbxl(name, root, data_root)
    if name in ("mimic", "synthetic-b"):
        from heartllm.data.mimic import open_mimic

        return open_mimic(name, root)
    from heartllm.data.cinc import open_cinc

    return open_cinc(name, root)

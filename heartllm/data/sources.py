"""Where data sets are published, and what of them is on disk.

`SHA256SUMS.txt`, which PhysioNet publishes with each, names every file with its hash. Where it lies in the folder,
files are held against it; where it does not, the recordings that the data set's table names are looked for, and their
sizes held against their headers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from heartllm.data.dataset import FOLDERS, did_you_mean
from heartllm.data.dataset_tables import below, read_rows
from heartllm.data.mimic import RECORDS
from heartllm.data.ptbxl import DATABASE
from heartllm.ecg.wfdb_header import read_header
from heartllm.errors import DataError, UsageError
from heartllm.texts import LONGEST_NAME, hash_file, read_text

SUMS = "SHA256SUMS.txt"
LARGEST_SUMS = 512 << 20  # bytes; MIMIC-IV-ECG's names 1.6 million files
_LINE = re.compile(r"(?P<hash>[0-9a-fA-F]{64}) [ *]?(?P<name>\S.*)")
Step = Callable[[int, int], None]  # (done, of)


@dataclass(frozen=True)
class Source:
    """A published data set.

    Attributes:
        name: as `open_dataset` knows it. title, page, licence, size: what a reader needs to know of it.
        files: where its files lie, each below this address.
        table: the file that names the recordings. column: with their paths.
        unread: folders of files that nothing here reads.
    """

    name: str
    title: str
    page: str
    files: str
    licence: str
    size: str
    table: str
    column: str
    unread: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Below the data root."""
        return FOLDERS[self.name]


SOURCES = {
    source.name: source
    for source in (
        Source(
            "ptbxl",
            "PTB-XL 1.0.3",
            "https://physionet.org/content/ptb-xl/1.0.3/",
            "https://physionet.org/files/ptb-xl/1.0.3/",
            "Creative Commons Attribution 4.0 (CC BY 4.0)",
            "21,799 recordings, about 3 GB; without records100/, which nothing here reads, about 2.5 GB",
            DATABASE,
            "filename_hr",
            ("records100",),
        ),
        Source(
            "mimic",
            "MIMIC-IV-ECG 1.0",
            "https://physionet.org/content/mimic-iv-ecg/1.0/",
            "https://physionet.org/files/mimic-iv-ecg/1.0/",
            "as stated on its page, with its own terms of use",
            "about 800,000 recordings, about 90 GB",
            RECORDS,
            "path",
        ),
    )
}


def source_of(name: str) -> Source:
    """The source of a data set.

    Raises:
        UsageError: for one that is not known.
    """
    if name not in SOURCES:
        raise UsageError(f"no source of {name!r} is known", where="data get", remedy=did_you_mean(name, tuple(SOURCES)))
    return SOURCES[name]


@dataclass(frozen=True)
class Holding:
    """What of a data set is on disk.

    Attributes:
        expected: files that should be there. by: what says so: "SHA256SUMS.txt", the table's name, or "" for nothing.
        missing, wrong: names of files that are not there, or not as they should be.
    """

    expected: int
    by: str
    missing: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all is there."""
        return bool(self.by) and not self.missing and not self.wrong


def read_sums(path: Path) -> dict[str, str]:
    """Name -> SHA-256 of a `SHA256SUMS.txt`.

    Raises:
        DataError: if it cannot be read, has a line of another form, or a name that leads out of the folder.
    """
    remedy = "Take the file as the data set's page has it."
    try:
        if path.stat().st_size > LARGEST_SUMS:
            raise ValueError("too long")
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy=remedy) from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip())
        parts = match["name"].removeprefix("./").split("/") if match else []
        if not match or any(part in ("", ".", "..") or len(part.encode()) > LONGEST_NAME for part in parts):
            raise DataError(
                f"{line.strip()[:100]!r} is no hash and name of a file in the folder", where=f"{path}, line {number}",
                remedy=remedy,
            )  # fmt: skip
        if any("\\" in part or not part.isprintable() for part in parts):
            raise DataError(f"the name {'/'.join(parts)!r} is no file's", where=f"{path}, line {number}", remedy=remedy)
        sums["/".join(parts)] = match["hash"].lower()
    if not sums:
        raise DataError("names no files", where=path, remedy=remedy)
    return sums


def needed(source: Source, sums: dict[str, str], *, everything: bool = False) -> dict[str, str]:
    """The listed files without those that nothing here reads."""
    return {name: value for name, value in sums.items() if everything or name.split("/")[0] not in source.unread}


def look(
    source: Source, root: Path, *, quick: bool = False, everything: bool = False, step: Step = lambda done, of: None
) -> Holding:
    """What of `source` is in the folder `root`.

    Args:
        quick: only whether files are there. everything: also of files that nothing here reads.

    Raises:
        DataError: for a table or list of hashes that cannot be read.
    """
    if (root / SUMS).is_file():
        sums = needed(source, read_sums(root / SUMS), everything=everything)
        missing, wrong = [], []
        for number, (name, expected) in enumerate(sums.items(), start=1):
            path = root / name
            if not path.is_file():
                missing.append(name)
            elif not quick and hash_file(path) != expected:
                wrong.append(name)
            step(number, len(sums))
        return Holding(len(sums), SUMS, tuple(missing), tuple(wrong))
    if not (root / source.table).is_file():
        return Holding(0, "", (source.table,))
    stems = list(_stems(source, root))
    missing, wrong = [], []
    for number, stem in enumerate(stems, start=1):
        files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".hea", ".dat")]
        absent = [path for path in files if not path.is_file()]
        missing += [path.relative_to(root).as_posix() for path in absent]
        if not absent and not quick and not _of_its_size(*files):
            wrong.append(files[1].relative_to(root).as_posix())
        step(number, len(stems))
    return Holding(2 * len(stems), source.table, tuple(missing), tuple(wrong))


def _stems(source: Source, root: Path) -> Iterator[Path]:
    path = root / source.table
    for line, row in read_rows(path, [source.column]):
        yield below(root, row, source.column, f"{path}:{line}")


def _of_its_size(header: Path, signal: Path) -> bool:
    """Whether a 16-bit signal file has the bytes that its header promises."""
    try:
        found = read_header(header)
    except DataError:
        return False
    return found.samples is None or signal.stat().st_size == 2 * found.samples * len(found.signals)

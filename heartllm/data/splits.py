"""Split manifests: which recording belongs to which split, with hashes, and no patient in two splits.

A manifest is a JSON file in the dataset's folder (`split_manifest.json`). Where it is present it decides the split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heartllm.data.records import SPLITS, Entry
from heartllm.errors import DataError
from heartllm.texts import read_json
from heartllm.writing import write_whole

MANIFEST_NAME = "split_manifest.json"
MANIFEST_VERSION = 1


def hash_ids(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted ids, one a line: the same for any order."""
    return hashlib.sha256("".join(f"{item}\n" for item in sorted(ids)).encode()).hexdigest()


def hashed_split(patient_id: str) -> str:
    """A split from the patient id alone: 80 % train, 10 % valid, 10 % test, the same on every machine."""
    bucket = int.from_bytes(hashlib.sha256(f"split:{patient_id}".encode()).digest()[:8], "big") % 10
    return {8: "valid", 9: "test"}.get(bucket, "train")


@dataclass(frozen=True)
class SplitManifest:
    """The splits of a dataset.

    Attributes:
        dataset: its name.
        split_of: record id -> split.
        patients: split -> number of patients.
    """

    dataset: str
    split_of: Mapping[str, str]
    patients: Mapping[str, int]

    def ids(self, split: str) -> list[str]:
        """The record ids of a split, sorted."""
        return sorted(record_id for record_id, own in self.split_of.items() if own == split)

    def hashes(self) -> dict[str, str]:
        """Split -> SHA-256 of its ids."""
        return {split: hash_ids(self.ids(split)) for split in SPLITS}


def check_patients(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """Split -> its patients.

    Raises:
        DataError: one patient has recordings in two splits; the message names both recordings.
    """
    first: dict[str, tuple[str, str]] = {}
    patients: dict[str, set[str]] = {split: set() for split in SPLITS}
    for entry in entries:
        if entry.split is None:
            continue
        split, record_id = first.setdefault(entry.patient_id, (entry.split, entry.record_id))
        if split != entry.split:
            raise DataError(
                f"patient {entry.patient_id} is in two splits: recording {record_id} in {split}, "
                f"recording {entry.record_id} in {entry.split}",
                remedy="Put all recordings of a patient into one split.",
                where=entry.source,
            )
        patients[entry.split].add(entry.patient_id)
    return patients


def make_manifest(dataset: str, entries: Iterable[Entry]) -> SplitManifest:
    """The manifest of these entries, checked for shared patients; entries without a split are left out."""
    entries = list(entries)
    patients = check_patients(entries)
    return SplitManifest(
        dataset,
        {entry.record_id: entry.split for entry in entries if entry.split is not None},
        {split: len(members) for split, members in patients.items()},
    )


def write_manifest(manifest: SplitManifest, path: Path) -> None:
    """Writes a manifest as JSON: version, dataset, and for each split its counts, hash and ids."""
    splits = {
        split: {
            "recordings": len(manifest.ids(split)),
            "patients": manifest.patients.get(split, 0),
            "sha256": digest,
            "ids": manifest.ids(split),
        }
        for split, digest in manifest.hashes().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"version": MANIFEST_VERSION, "dataset": manifest.dataset, "splits": splits}
    write_whole(path, json.dumps(document, indent=1) + "\n")


def read_manifest(path: Path) -> SplitManifest:
    """Reads a manifest and checks it against its own hashes.

    Raises:
        DataError: not a manifest, an unknown split, ids that do not fit their hash, or an id in two splits.
    """
    try:
        document: Any = read_json(path)
        version, dataset, splits = document["version"], str(document["dataset"]), dict(document["splits"])
        parts = {
            str(name): ([str(i) for i in part["ids"]], part["sha256"], int(part["patients"]))
            for name, part in splits.items()
        }
    except FileNotFoundError:
        raise DataError(
            "no split manifest is here", remedy="Write one with: heartllm data splits", where=path
        ) from None
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(
            f"this is no split manifest ({type(error).__name__}: {error})",
            remedy="Write it again with: heartllm data splits",
            where=path,
        ) from None
    if version != MANIFEST_VERSION:
        raise DataError(f"manifest version {version!r}", remedy=f"This program reads {MANIFEST_VERSION}.", where=path)
    split_of: dict[str, str] = {}
    for split, (ids, digest, _) in parts.items():
        if split not in SPLITS:
            raise DataError(f"unknown split {split!r}", remedy=f"Splits are {', '.join(SPLITS)}.", where=path)
        if hash_ids(ids) != digest:
            raise DataError(
                f"the ids of the split {split!r} do not fit their hash",
                remedy="The file was edited; write it again with: heartllm data splits",
                where=path,
            )
        for record_id in ids:
            if split_of.setdefault(record_id, split) != split:
                raise DataError(
                    f"recording {record_id} is in the splits {split_of[record_id]} and {split}",
                    remedy="Leave it in one split.",
                    where=path,
                )
    return SplitManifest(dataset, split_of, {split: patients for split, (_, _, patients) in parts.items()})

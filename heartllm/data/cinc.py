"""Sites in the layout of the PhysioNet/CinC Challenges 2020/2021: `.hea` and `.mat`, SNOMED CT codes in `# Dx:`.

`snomed.csv` maps the codes to ECG-QA's names. A site uses its own part of the codes only, so a finding that is
absent here may merely be one that the site never notes: compare on findings that the site does use.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from heartllm.data.dataset import FileDataset
from heartllm.data.records import Entry, Labels
from heartllm.data.splits import MANIFEST_NAME, read_manifest
from heartllm.data.statements import read_table
from heartllm.errors import DataError

LIKELIHOOD = 0.0  # present; the sites state no likelihood
_COMMENT = re.compile(r"^#\s*(\w+)\s*:\s*(.*)$")


@dataclass(frozen=True)
class Finding:
    """What a SNOMED CT code stands for: a "statement" or an "axis" under ECG-QA's name."""

    kind: str
    name: str


@lru_cache(maxsize=1)
def snomed_table() -> Mapping[str, Finding]:
    """SNOMED CT code -> finding."""
    return {row["snomed"]: Finding(row["kind"], row["name"]) for row in read_table("snomed.csv")}


def read_comments(path: Path) -> dict[str, str]:
    """The "# Key: value" lines of a WFDB header, keys in lower case.

    Raises:
        DataError: the header cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the header cannot be read ({error})", remedy="Fetch the file again.", where=path) from None
    matches = (_COMMENT.match(line.strip()) for line in text.splitlines())
    return {match[1].lower(): match[2].strip() for match in matches if match}


def parse_age(text: str) -> float | None:
    """Years; None for "NaN", "Unknown" and the like."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if math.isfinite(age) and 0 <= age <= 120 else None


def codes_of(text: str) -> list[str]:
    """The codes of a `Dx` value ("426783006,39732003")."""
    return [code.strip() for code in text.split(",") if code.strip().isdigit()]


def count_codes(root: Path) -> Counter[str]:
    """How many recordings of a site's folder carry each code, also those that `snomed.csv` does not list."""
    return Counter(code for path in root.rglob("*.hea") for code in set(codes_of(read_comments(path).get("dx", ""))))


def labels_of(codes: str) -> Labels:
    """The labels of a `Dx` value; without any code nothing is labelled."""
    listed = codes_of(codes)
    if not listed:
        return Labels()
    found = [snomed_table()[code] for code in listed if code in snomed_table()]
    axes = [finding.name for finding in found if finding.kind == "axis"]
    return Labels(
        statements={finding.name: LIKELIHOOD for finding in found if finding.kind == "statement"},
        heart_axis=axes[0] if len(axes) == 1 else None,
    )


def open_cinc(name: str, root: Path) -> FileDataset:
    """Opens a folder of CinC recordings, searched in depth.

    The sites serve zero-shot checks: every recording is "test", unless `split_manifest.json` in the folder says
    otherwise. They name no patients, so each recording counts as one.
    """

    def load() -> Iterator[Entry]:
        manifest: Mapping[str, str] | None = None
        if (root / MANIFEST_NAME).is_file():
            manifest = read_manifest(root / MANIFEST_NAME).split_of
        headers = sorted(root.rglob("*.hea"), key=lambda path: path.stem)
        if not headers:
            raise DataError(
                "the folder holds no recordings", remedy="Put the site's .hea and .mat files here.", where=root
            )
        seen: dict[str, Path] = {}
        for path in headers:
            if seen.setdefault(path.stem, path) != path:
                raise DataError(f"recording {path.stem} lies here twice", remedy=f"See {seen[path.stem]}.", where=path)
            comments = read_comments(path)
            yield Entry(
                record_id=path.stem,
                patient_id=path.stem,
                source=name,
                path=path.with_suffix(""),
                labels=labels_of(comments.get("dx", "")),
                split="test" if manifest is None else manifest.get(path.stem),
                age=parse_age(comments.get("age", "")),
                sex={"m": "male", "male": "male", "f": "female", "female": "female"}.get(
                    comments.get("sex", "").lower()
                ),
            )

    return FileDataset(name, root, load)

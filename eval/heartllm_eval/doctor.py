"""What `heartllm-eval doctor` looks at: each thing with what was found, and what to do where that is not enough."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from heartllm_eval import provenance
from heartllm_eval.metrics import wordnet

OLDEST_PYTHON = (3, 10)
NEEDED = ("numpy", "nltk", "rouge_score", "sacrebleu", "rich", "typer")  # without these nothing is scored
MODEL_STACK = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "wfdb", "scipy")
FIGURES = ("matplotlib", "umap", "sklearn")
ENOUGH_MEMORY = 2 << 10  # MiB; the reference checkpoint is evaluated, and trained, in less
ENOUGH_DISK = 1 << 30  # bytes
# Of each data set below a data root the files whose content decides what is asked.
KEY_FILES = {
    "ptbxl": ("ptbxl_database.csv", "scp_statements.csv"),
    "ecgqa": ("ptbxl/*_ecgs.tsv", "mimic-iv-ecg/*_ecgs.tsv"),
    "reports": ("*/*.json", "*/*.csv"),
    "mimic": ("record_list.csv", "machine_measurements.csv"),
    "synthetic-a": ("ptbxl_database.csv",),
    "synthetic-b": ("record_list.csv",),
    "other_sites": (),
}


@dataclass(frozen=True)
class Look:
    """One thing that was looked at.

    Attributes:
        state: "ok"; "note": something will not work, which not everybody needs; "missing": nothing works without it.
        remedy: what to do, where the state is not "ok".
    """

    name: str
    state: Literal["ok", "note", "missing"]
    found: str
    remedy: str = ""


def look(data_roots: Sequence[Path]) -> list[Look]:
    """Everything, in the order in which it is shown."""
    return [*_programs(), *_accelerator(), *_machine(), *_places(), *_data(data_roots)]


def _programs() -> Iterator[Look]:
    python = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= OLDEST_PYTHON
    yield Look("Python", "ok" if fine else "missing", python, "" if fine else "Use Python 3.10 or newer.")
    source = provenance.source()
    changed = ", with changes that are not committed" if source.get("dirty") else ""
    yield Look("code", "ok", f"commit {source['commit']}{changed}" if source.get("commit") else "installed package")
    for name, version in provenance.versions().items():
        if name != "python":
            yield Look(name, "ok", version)
    yield _packages("scoring", NEEDED, "missing", "pip install heartllm")
    yield _packages("checkpoints, training", MODEL_STACK, "note", "pip install 'heartllm[model]'")
    yield _packages("figures", FIGURES, "note", "pip install 'heartllm[figures]'")
    found = wordnet.available()
    lacks = found.startswith("none")
    yield Look("WordNet", "note" if lacks else "ok", found, "heartllm-eval fetch-wordnet" if lacks else "")


def _packages(what: str, names: Sequence[str], otherwise: Literal["note", "missing"], remedy: str) -> Look:
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    if not lacking:
        return Look(what, "ok", "all packages are here")
    return Look(what, otherwise, f"lacks {', '.join(lacking)}", remedy)


def _accelerator() -> Iterator[Look]:
    """Imports torch, where it is installed: whether it can be is part of the answer."""
    if importlib.util.find_spec("torch") is None:
        return
    try:
        torch: Any = importlib.import_module("torch")
    except (ImportError, OSError) as error:  # a library of the system, or of another CUDA version, that it lacks
        yield Look("torch", "missing", f"cannot be imported ({str(error)[:120]})", "Install it again.")
        return
    yield Look("threads", "ok", f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')})")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    yield Look("GPU", "ok", names or "none: everything runs on the CPU, too")


def _machine() -> Iterator[Look]:
    hardware = provenance.hardware()
    yield Look("processor", "ok", f"{hardware['processor']}, {hardware['cores']} cores")
    total, free = hardware["memory_mb"], _available_mb()
    told = f"{total:,} MiB" if total else "not told by the system"
    told += f", {free:,} MiB of it available" if free is not None else ""
    low = free is not None and free < ENOUGH_MEMORY
    yield Look("memory", "note" if low else "ok", told, "Close other programs, or give a smaller --batch_size." * low)


def _available_mb() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) >> 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _places() -> Iterator[Look]:
    """Where something is written: the cache, and the folder that the command was given in."""
    cache = wordnet.data_folder().parent
    for name, folder, remedy in (
        ("cache", cache, "Let HEARTLLM_CACHE name a folder that you may write to."),
        ("this folder", Path.cwd(), "Change to a folder that you may write to, or always give -o."),
    ):
        existing = next(part for part in (folder, *folder.parents) if part.exists())
        if not _writable(existing):
            yield Look(name, "missing", f"{folder} cannot be written to", remedy)
            continue
        free = shutil.disk_usage(existing).free
        low = free < ENOUGH_DISK
        yield Look(name, "note" if low else "ok", f"{folder}, {free >> 20:,} MiB free", "Make room on the disk." * low)


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _data(roots: Sequence[Path]) -> Iterator[Look]:
    remedy = "Let --data_root or HEARTLLM_DATA name a folder with ptbxl/, ecgqa/, ...; or `heartllm data synth`."
    if not roots:
        yield Look("data", "note", "no --data_root and no HEARTLLM_DATA", remedy)
    for root in roots:
        if not root.is_dir():
            yield Look("data", "missing", f"{root} is no folder", remedy)
            continue
        there = [name for name in KEY_FILES if (root / name).is_dir()]
        yield Look(
            "data", "ok" if there else "note", f"{root} holds {', '.join(there) or 'no data set'}", remedy * (not there)
        )
        for name in there:
            yield from _data_set(root / name, KEY_FILES[name])


def _data_set(folder: Path, patterns: Sequence[str]) -> Iterator[Look]:
    if not patterns:
        sites = sorted(part.name for part in folder.iterdir() if part.is_dir())
        yield Look(
            folder.name,
            "ok" if sites else "note",
            ", ".join(sites) or "empty",
            "Put the sites' folders there." * (not sites),
        )
        return
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    if not found:
        remedy = f"Put it there as it is published: {patterns[0]}."
        yield Look(folder.name, "note", f"none of {', '.join(patterns)} is there", remedy)
    for path in found:
        name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
        try:
            with path.open("rb") as stream:
                digest = _digest(stream)
        except OSError as error:
            yield Look(name, "note", f"cannot be read ({error.strerror})", "Check its permissions.")
            continue
        yield Look(name, "ok", f"sha256 {digest[:16]}, {path.stat().st_size:,} bytes")


def _digest(stream: Any) -> str:
    total = hashlib.sha256()
    while piece := stream.read(1 << 20):
        total.update(piece)
    return total.hexdigest()

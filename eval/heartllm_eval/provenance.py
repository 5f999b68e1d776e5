"""Where a number comes from: versions, commit, hardware, memory. Nothing here imports a heavy package."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heartllm.errors import HeartLLMError

if TYPE_CHECKING:
    from heartllm_eval.requests import Workspace
    from heartllm_eval.schema import Request

HASHED_RECORDINGS = 5000
PACKAGES = (
    "heartllm",
    "numpy",
    "nltk",
    "sacrebleu",
    "rouge-score",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "wfdb",
)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Python and the packages that can change a number, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def source() -> dict[str, Any]:
    """The git commit of this code and whether it was changed since; empty for an installed wheel.

    A wheel may well lie inside someone else's repository, so the commit counts only if git tracks this very file.
    """
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", here.name) is None:
        return {}
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


@cache
def code_hash() -> str:
    """SHA-256 over the files of both packages as they lie on disk: another program may answer otherwise."""
    import heartllm

    total = hashlib.sha256()
    for package in (Path(heartllm.__file__).parent, Path(__file__).parent):
        for path in sorted(part for kind in ("*.py", "*.toml", "*.csv") for part in package.rglob(kind)):
            total.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()


def earlier_code(before: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The code of a run's earlier starts, from its record; a start by the same code as the one before is left out."""
    known = list(dict(before.get("settings") or {}).get("earlier_code") or [])
    last = {name: before.get(name) or {} for name in ("source", "versions")}
    same = known and all(known[-1].get(name) == last[name] for name in last)
    return known if same else [*known, {"started": before.get("started"), **last}]


def data(workspace: Workspace, planned: Mapping[str, Sequence[Request]]) -> dict[str, Any]:
    """Of each dataset that is asked about: the hash of its tables, and of the recordings shown.

    Recordings are hashed up to `HASHED_RECORDINGS`; of more, reading them all would take longer than it is worth.
    What cannot be read has no hash: a predictions file can be scored without the recordings.
    """
    found: dict[str, Any] = {}
    shown: dict[str, set[str]] = {}
    for requests in planned.values():
        for request in requests:
            shown.setdefault(request.dataset, set()).update(request.record_ids)
    for name in sorted(shown):
        try:
            root = Path(workspace.dataset(name).root)
            tables = hashlib.sha256()
            for path in sorted((*root.glob("*.csv"), *root.glob("*.json"))):
                tables.update(path.name.encode() + b"\0" + path.read_bytes())
            recordings = None
            if len(shown[name]) <= HASHED_RECORDINGS:
                parts = (f"{record}:{workspace.files_hash(name, record)}\n" for record in sorted(shown[name]))
                recordings = hashlib.sha256("".join(parts).encode()).hexdigest()
        except (HeartLLMError, OSError):
            continue
        found[name] = {"tables": tables.hexdigest(), "recordings": len(shown[name]), "recordings_hash": recordings}
    return found


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores that this process may use, threads, memory, and the device that was asked for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_mb": _total_memory_mb(),
        "device": device,
    }
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        found["torch_threads"] = torch.get_num_threads()
        if device.startswith("cuda") and torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def peak_memory_mb() -> float | None:
    """The largest resident size of this process so far, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(size / (1024**2 if sys.platform == "darwin" else 1024), 1)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _total_memory_mb() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    except (AttributeError, OSError, ValueError):
        return None

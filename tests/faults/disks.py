"""Disks that are full, and disks that cannot be written to, for every stage: real ones, in a mount namespace.

    unshare --user --map-root-user --mount python tests/faults/disks.py WORK [STAGE,... [SHARE,...]]

Each stage's command is run on a disk of a part of the space that it needs. It must end with exit code 1 and one line
that says so; with more space, the same command must end as if nothing had happened. Prints a JSON object a try.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import children
import stages
from children import apart
from stages import Stage
from torture import undisturbed

SHARES = (0.02, 0.3, 0.6, 0.95)  # of the space that the finished stage takes; what it needs meanwhile is more
PAGE = 4096
FULL, READ_ONLY = "full", "read-only"


@contextmanager
def disk(place: Path, options: str) -> Iterator[None]:
    """A small disk at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def pages(folder: Path) -> int:
    """Pages that the files and folders below take."""
    return sum(-(-max(1, path.stat().st_size) // PAGE) for path in folder.rglob("*"))


def attempt(stage: Stage, base: Path, work: Path, kind: str, share: float) -> dict[str, Any]:
    """One try; "wrong" says what is not as it should be, if anything."""
    whole, place = undisturbed(stage, base), work / "disk"
    out, log = place / "out", work / "disk.log"
    command = stage.command(base, out)
    size = max(8, round(share * pages(base / stage.name))) * PAGE if kind == FULL else 1 << 26
    with disk(place, f"size={size}"):
        if kind == READ_ONLY:
            subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        first = children.run(command, out, log)
        wrong = [] if first.code in (0, 1) else [f"exit code {first.code}: {first.output[-800:]}"]
        lines = [line for line in first.output.splitlines() if line.startswith("error: ")]
        if first.code == 1 and (len(lines) != 1 or first.output.splitlines()[-1] != lines[0]):
            wrong.append(f"not one line: {first.output[-800:]}")
        if kind == READ_ONLY and first.code == 0:
            wrong.append("it has ended well")
        subprocess.run(["mount", "-o", f"remount,rw,size={1 << 26}", place], check=True)
        second = children.run(command, out, log)
        if second.code != 0:
            wrong.append(f"with more space, exit code {second.code}: {second.output[-800:]}")
        else:
            result = apart(lambda: stage.result(out))
            wrong += [f"{name} is another one" for name in sorted(result) if result[name] != whole.result.get(name)]
            wrong += [f"{name} is missing" for name in sorted(whole.result) if name not in result]
    return {"stage": stage.name, "kind": kind, "share": share, "code": first.code, "told": lines[-1:], "wrong": wrong}


def main() -> None:
    work = Path(sys.argv[1]).absolute()
    names = sys.argv[2].split(",") if len(sys.argv) > 2 else [stage.name for stage in stages.STAGES]
    shares = [float(share) for share in sys.argv[3].split(",")] if len(sys.argv) > 3 else SHARES
    last = max(number for number, stage in enumerate(stages.STAGES) if stage.name in names)
    children.warm()
    stages.make_small()
    stages.write_inputs(work / "base")
    for stage in stages.STAGES[: last + 1]:
        undisturbed(stage, work / "base")
    for stage in stages.STAGES:
        if stage.name in names:
            for kind, share in (*((FULL, share) for share in shares), (READ_ONLY, 1.0)):
                print(json.dumps(attempt(stage, work / "base", work, kind, share)), flush=True)


if __name__ == "__main__":
    main()

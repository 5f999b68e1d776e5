"""Every stage, killed and started again (`torture.py`), and on disks that are full or read-only (`disks.py`).

Both are programs of their own: they fork, and what forks had better not have run a few hundred tests before.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
HERE = Path(__file__).parent
NOTHING = {"losses": 0, "doubled": 0, "corrupt": 0, "different": 0, "failed": 0}


def torture(work: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "torture.py"), "--work", str(work), "--out", str(work / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_kills_of_the_first_stages(tmp_path: Path) -> None:
    total = torture(tmp_path, "--kills", "4", "--seed", "1", "--stages", "data,tokenizer")
    assert total.pop("kills") == 4
    assert total.items() >= NOTHING.items()
    assert "| synthetic generation | " in (tmp_path / "out" / "faults.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_kills_of_all_stages_in_two_calls(tmp_path: Path) -> None:
    """The second call goes on after what the first has done."""
    torture(tmp_path, "--kills", "18", "--seed", "2", "--seconds", "1")
    assert not (tmp_path / "out").exists()
    cases = json.loads((tmp_path / "seed-2" / "progress.json").read_text(encoding="utf-8"))
    total = torture(tmp_path, "--kills", "18", "--seed", "2")
    assert total["cases"] > len(cases) >= 1
    assert total["kills"] == 18
    assert total.items() >= NOTHING.items()
    rows = json.loads((tmp_path / "out" / "faults.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 9
    assert all(row["kills"] == 2 for row in rows)


@pytest.mark.slow
def test_full_and_read_only_disks(tmp_path: Path) -> None:
    mount = ["unshare", "--user", "--map-root-user", "--mount"]
    (tmp_path / "disk").mkdir()
    trial = [*mount, "mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path / "disk")]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode:
        pytest.skip("this system does not let a test mount a disk")
    command = [
        *mount,
        sys.executable,
        str(HERE / "disks.py"),
        str(tmp_path),
        "data,tokenizer,tokens,forecast",
        "0.3,0.9",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    tries = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(tries) == 12
    assert not [one for one in tries if one["wrong"]]
    assert all(one["code"] == 1 for one in tries if one["stage"] != "forecast")
    told = [one["told"][0] for one in tries if one["code"]]
    assert all(str(tmp_path) in line for line in told)  # the place
    assert all(("space" in line or "written" in line or "Read-only" in line) for line in told)  # and the reason

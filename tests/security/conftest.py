"""Attacks that several tests make: each must end in one of our errors, and run nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Bomb:
    """What `pickle` executes on loading."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def bomb(tmp_path: Path) -> Iterator[Bomb]:
    """An object that leaves a file when it is unpickled; the test fails if the file is there at its end."""
    made = Bomb(tmp_path / "executed")
    yield made
    assert not made.mark.exists(), "the attack ran"


@pytest.fixture
def little_memory() -> Iterator[Callable[[], None]]:
    """Limits the address space to what is in use now and 512 MiB more: an allocation that a header asks for fails."""
    resource = pytest.importorskip("resource")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_AS, before)

"""The wheel holds the two import packages, whole, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="building the wheel needs hatchling (the dev extra)")

# Import package -> where its source lies in the repository.
PACKAGES = {"heartllm": "heartllm", "heartllm_eval": "eval/heartllm_eval"}


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=repository,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_top_level_is_the_two_packages(names: list[str]) -> None:
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert len(top) == 3


def test_every_committed_file_of_the_packages_is_inside(names: list[str], repository: Path) -> None:
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    for package, folder in PACKAGES.items():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--", folder], cwd=repository, check=True, capture_output=True, text=True
        )
        committed = {path for path in listed.stdout.split("\0") if path and (repository / path).exists()}
        assert committed
        inside = {folder + name.removeprefix(package) for name in names if name.startswith(f"{package}/")}
        assert committed <= inside, f"not in the wheel: {sorted(committed - inside)}"


def test_marked_as_typed_and_licensed(names: list[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    licences = {name.rsplit("/", 1)[1] for name in names if ".dist-info/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE"}


def test_no_cache_or_test_files(names: list[str]) -> None:
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc") or "/tests/" in name]


def test_imports_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, '.'); import heartllm as a, heartllm_eval as b; print(a.__file__, b.__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert [(tmp_path / path).resolve().is_relative_to(tmp_path.resolve()) for path in run.stdout.split()] == [
        True,
        True,
    ]

"""The wheel holds the two import packages, whole, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import heartllm

pytest.importorskip("hatchling", reason="building the wheel needs hatchling (the dev extra)")

# Import package -> where its source lies in the repository.
PACKAGES = {"heartllm": "heartllm", "heartllm_eval": "eval/heartllm_eval"}


def build(source: Path, kind: str, folder: Path) -> Path:
    """Builds the "wheel" or "sdist" of a source tree into `folder`."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)],
        cwd=source,
        env=dict(os.environ, SOURCE_DATE_EPOCH="1700000000"),
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(repository, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def unpacked(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked: other times of files and another folder than the checkout's."""
    with tarfile.open(build(repository, "sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        archive.extractall(folder := tmp_path_factory.mktemp("unpacked"), filter="data")
    (source,) = folder.iterdir()
    return source


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


def test_metadata_has_the_version_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert f"\nVersion: {heartllm.__version__}\n" in metadata


def test_builds_are_reproducible(wheel: Path, unpacked: Path, tmp_path: Path) -> None:
    """From the source distribution, in another folder and with other file times, the wheel has the same bytes."""
    for path in unpacked.rglob("*"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    assert build(unpacked, "wheel", tmp_path).read_bytes() == wheel.read_bytes()


def test_source_distribution_installs(unpacked: Path, tmp_path: Path) -> None:
    """pip installs it with the build tools at hand, and the command line of what is installed tells its version."""
    if shutil.which("pip", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("no pip in this environment")
    # tests/heartllm_eval holds scoring's tests: a source distribution can be tested.
    assert (unpacked / "tests" / "conftest.py").is_file()
    target = tmp_path / "site"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(unpacked)], check=True, timeout=120)
    code = "import heartllm_eval, heartllm; print(heartllm_eval.__file__); print(heartllm.__version__)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=str(target)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    place, version = run.stdout.split()
    assert Path(place).is_relative_to(target)
    assert version == heartllm.__version__

"""The files that describe the package agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import heartllm
from heartllm.config import read_toml

packaging_requirements = pytest.importorskip("packaging.requirements")
Requirement = packaging_requirements.Requirement

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NEVER_IN_THE_BASE_INSTALL = {
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "wfdb",
    "scipy",
    "pandas",
    "matplotlib",
    "scikit-learn",
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    values: dict[str, Any] = read_toml(repository / "pyproject.toml")["project"]
    return values


def pins(path: Path, python: str) -> dict[str, str]:
    """Package -> exact version that a constraints file gives on one Python version (Linux)."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{path.name}: {line!r} is not an exact version"
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert normal(requirement.name) not in found, (
                f"{path.name}: two versions of {requirement.name} on Python {python}"
            )
            found[normal(requirement.name)] = specifier.version
    return found


def requirements(project: dict[str, Any], *extras: str, python: str = "3.11") -> list[Any]:
    """What the base install and the extras ask for on one Python version."""
    lines = list(project["dependencies"])
    for extra in extras:
        lines += [line for line in project["optional-dependencies"][extra] if not line.startswith("heartllm[")]
    wanted = [Requirement(line) for line in lines]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"python_version": python, "extra": ""})]


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_the_base_install_inside_its_ranges(
    project: dict[str, Any], repository: Path, python: str
) -> None:
    pinned = pins(repository / "constraints.txt", python)
    for requirement in requirements(project, python=python):
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement


def test_constraints_pin_the_full_stack_inside_its_ranges(project: dict[str, Any], repository: Path) -> None:
    pinned = pins(repository / "constraints.txt", "3.11")
    for requirement in requirements(project, "model", "figures", "smollm2", "dev", "docs", "browser"):
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement


def test_oldest_constraints_lie_at_the_lower_ends(project: dict[str, Any], repository: Path) -> None:
    pinned = pins(repository / "constraints-oldest.txt", "3.11")
    for requirement in requirements(project, "model", "smollm2"):
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement
    for name in ("transformers", "peft", "accelerate", "numpy", "gguf"):
        (requirement,) = (r for r in requirements(project, "model", "smollm2") if r.name == name)
        lowest = next(s.version for s in requirement.specifier if s.operator == ">=")
        assert pinned[name].startswith(lowest), (
            f"{name}: the matrix tries {pinned[name]}, the metadata promises {lowest}"
        )


def test_torch_has_one_version_everywhere(repository: Path) -> None:
    versions = {pins(repository / name, "3.11")["torch"] for name in ("constraints.txt", "constraints-oldest.txt")}
    in_tox = set(re.findall(r"torch==([\d.]+)", (repository / "tox.ini").read_text()))
    assert versions | in_tox == versions
    assert len(versions) == 1


def test_base_install_is_light(project: dict[str, Any]) -> None:
    names = {normal(requirement.name) for requirement in requirements(project)}
    assert not names & NEVER_IN_THE_BASE_INSTALL
    assert len(names) <= 8


def test_every_supported_python_has_a_tox_environment(project: dict[str, Any], repository: Path) -> None:
    classified = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if re.search(r"Python :: 3\.\d", line)]
    assert tuple(classified) == PYTHONS
    assert (
        f"base-py{{{','.join(python.replace('.', '') for python in PYTHONS)}}}" in (repository / "tox.ini").read_text()
    )


def test_citation_and_changelog_name_the_version(project: dict[str, Any], repository: Path) -> None:
    citation = (repository / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(heartllm.__version__)}$", citation, flags=re.MULTILINE)
    assert f"license: {project['license']}" in citation
    assert re.search(
        rf"^## \[({re.escape(heartllm.__version__)}|Unreleased)\]",
        (repository / "CHANGELOG.md").read_text(),
        flags=re.MULTILINE,
    )


def test_the_version_stands_in_one_place(project: dict[str, Any], repository: Path) -> None:
    """The wheel's version is read from `heartllm/__init__.py`."""
    assert project["dynamic"] == ["version"]
    assert "version" not in project
    assert read_toml(repository / "pyproject.toml")["tool"]["hatch"]["version"] == {"path": "heartllm/__init__.py"}


def test_continuous_integration_runs_every_tox_environment(repository: Path) -> None:
    """.github/workflows/ci.yml names tox environments and nothing of its own; those of .ci/run are among them."""
    workflow = (repository / ".github" / "workflows" / "ci.yml").read_text()
    named = set(re.findall(r"^ +- environment: (\S+)$", workflow, flags=re.MULTILINE))
    listed = re.search(r"env_list =\n((?:    .+\n)+)", (repository / "tox.ini").read_text())
    assert listed
    known = {name for name in listed[1].split() if not name.startswith("base-py")}
    assert named == known | {f"base-py{python.replace('.', '')}" for python in PYTHONS}
    in_ci_run = re.search(r"TOX_ENVIRONMENTS:-([^}]+)\}", (repository / ".ci" / "run").read_text())
    assert in_ci_run
    assert set(in_ci_run[1].split()) <= named


def test_no_package_called_eval(repository: Path) -> None:
    assert not (repository / "eval" / "__init__.py").exists()


@pytest.mark.parametrize("script", ["heartllm", "heartllm-eval"])
def test_console_scripts_explain_themselves(project: dict[str, Any], script: str) -> None:
    module, function = project["scripts"][script].split(":")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.argv = [{script!r}, '--help']; from {module} import {function}; {function}()",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "Usage" in run.stdout

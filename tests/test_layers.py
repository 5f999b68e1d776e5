"""The layers hold: who may import whom, and what must be importable without the model stack."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

# Not in the base install, or slow to import; a module that scores or parses must not need them to be imported.
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "wfdb",
    "scipy",
    "pandas",
    "matplotlib",
    "sklearn",
    "umap",
)

# Adapters of model stacks; all else in heartllm_eval imports on the base install (figures import inside functions).
NEED_THE_MODEL_STACK = ("heartllm_eval.models.heartllm", "heartllm_eval.models.hf", "heartllm_eval.models.authors")

# Of heartllm: what the base install, the command line's --help and the question tools use.
LIGHT_MODULES = (
    "heartllm",
    "heartllm.errors",
    "heartllm.config",
    "heartllm.data.records",
    "heartllm.data.ecgqa",
    "heartllm.data.questions",
    "heartllm.cli",
)

# Run in a fresh interpreter: an import hook that refuses the heavy packages, then one import after the other.
IMPORT_ALL = """
import importlib, importlib.abc, json, sys, traceback

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HEAVY:
            raise ModuleNotFoundError(f"{name} is imported", name=name)

HEAVY, modules = json.loads(sys.argv[1])
sys.meta_path.insert(0, Refuse())
failed = {}
for module in modules:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "heartllm" in frame.filename]
        failed[module] = f"{error} at {frames[-1].filename}:{frames[-1].lineno}" if frames else str(error)
print(json.dumps(failed))
"""


def imports_without_heavy_packages(modules: list[str]) -> dict[str, str]:
    """Module -> why it could not be imported with the heavy packages refused."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps([HEAVY, modules])],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    failed: dict[str, str] = json.loads(run.stdout)
    return failed


def modules_of(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return [package, *(module.name for module in pkgutil.walk_packages(spec.submodule_search_locations, f"{package}."))]


def exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def test_the_import_hook_sees_a_heavy_import() -> None:
    assert list(imports_without_heavy_packages(["torch"])) == ["torch"]


def test_evaluation_imports_on_the_base_install() -> None:
    modules = [name for name in modules_of("heartllm_eval") if name not in NEED_THE_MODEL_STACK]
    assert len(modules) > 5
    assert imports_without_heavy_packages(modules) == {}


def test_light_modules_of_the_reference_stack_import_on_the_base_install() -> None:
    assert imports_without_heavy_packages([name for name in LIGHT_MODULES if exists(name)]) == {}


def test_import_linter_contracts(repository: Path) -> None:
    pytest.importorskip("importlinter", reason="the static check of the layers needs import-linter (the dev extra)")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    assert "0 broken" in run.stdout

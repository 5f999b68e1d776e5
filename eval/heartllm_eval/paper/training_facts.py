"""What a training cost, read from its checkpoint: parameters, steps, tokens, hours. Needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartllm.errors import DataError
from heartllm.untrusted import read_safetensors_header
from heartllm.writing import write_whole

_LANGUAGE = ("forecasting", "tuning")
_FRONT = ("codec.safetensors", "frontend.safetensors")


def facts(checkpoint: Path, device: str = "cpu") -> dict[str, Any]:
    """The facts of one training.

    `parameters` are those that the language model's stages train (for LoRA: adapters and new rows);
    `frontend_parameters` those of the front-end. `training_tokens` are positions of packed sequences, ECG and text,
    over both stages: the log's moving mean of the last steps times the steps; None for older logs, which do not tell.
    `hours` are of the front-end's training (shared by all seeds) and both stages, in the optimisation loop.

    Raises:
        DataError: if the folder is no checkpoint.
    """
    language = checkpoint / "language.safetensors"
    if not language.is_file():
        raise DataError("holds no language model", where=checkpoint, remedy="Train the row again.")
    front = next((checkpoint / name for name in _FRONT if (checkpoint / name).is_file()), None)
    logs = {path.stem: _last(path) for path in sorted((checkpoint / "training").glob("*.jsonl"))}
    stages = {name: logs[name] for name in _LANGUAGE if logs.get(name)}
    tokens = [line["step"] * line["positions"] if "positions" in line else None for line in stages.values()]
    seconds = {name: float(line.get("seconds", 0.0)) for name, line in logs.items() if line}
    return {
        "parameters": parameters(language),
        "frontend_parameters": parameters(front) if front is not None else 0,
        "steps": sum(int(line["step"]) for line in stages.values()),
        "training_tokens": None if None in tokens or not tokens else round(sum(part or 0.0 for part in tokens)),
        "hours": round(sum(seconds.values()) / 3600, 3),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "device": device,
    }


def parameters(path: Path) -> int:
    """How many numbers a safetensors file holds, from its header.

    Raises:
        DataError: if it has none.
    """
    try:
        shapes = read_safetensors_header(path)
    except (OSError, ValueError) as error:
        raise DataError(f"not a safetensors file ({error})", where=path, remedy="Train the row again.") from None
    return sum(map(math.prod, shapes.values()))


def write(facts_of: Mapping[str, Any], path: Path) -> None:
    """Writes the facts beside the frozen runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(facts_of, indent=1) + "\n")


def _last(path: Path) -> dict[str, Any]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return dict(json.loads(lines[-1])) if lines else {}
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({error})", where=path, remedy="Train the row again.") from None

"""Reads a run's record back from its folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heartllm.errors import DataError, UsageError
from heartllm_eval.planning import RUN_FILE
from heartllm_eval.schema import SCHEMA_VERSION, Difference, Figure, RunRecord

NO_RUN = "Name a folder that heartllm-eval run has written."


def read_json(folder: Path) -> dict[str, Any]:
    """The content of FOLDER/run.json.

    Raises:
        UsageError: if there is no such folder, or no run in it.
        DataError: if the file is broken, or of a later schema version than this program knows.
    """
    path = folder / RUN_FILE
    if not folder.is_dir():
        raise UsageError("no such folder", where=folder, remedy=NO_RUN)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"the folder holds no {RUN_FILE}", where=folder, remedy=NO_RUN) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check its permissions.") from None
    except ValueError as error:
        raise DataError(f"not a run record ({error})", where=path, remedy="Run again in another folder.") from None
    objects = (
        [data.get(name, {}) for name in ("tasks", "systems", "config", "signatures")] if isinstance(data, dict) else []
    )
    entries = [part for whole in objects[:2] if isinstance(whole, dict) for part in whole.values()]
    if not objects or "status" not in data or not all(isinstance(part, dict) for part in (*objects, *entries)):
        raise DataError("not a run record", where=path, remedy=NO_RUN)
    version = data.get("schema_version", 0)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise DataError(
            f"schema version {version}; this program reads up to {SCHEMA_VERSION}",
            where=path,
            remedy="Use the heartllm version that wrote it, or a newer one.",
        )
    return data


def read_record(folder: Path) -> RunRecord:
    """The record of a run; what an older version did not write has its default.

    Raises:
        UsageError, DataError: as `read_json`.
    """
    data = read_json(folder)
    try:
        values = _known(RunRecord, data)
        values["command"] = tuple(values.get("command", ()))
        values["figures"] = tuple(Figure(**_known(Figure, part)) for part in values.get("figures", ()))
        values["differences"] = tuple(Difference(**_known(Difference, part)) for part in values.get("differences", ()))
        return RunRecord(**values)
    except (TypeError, AttributeError) as error:
        raise DataError(
            f"not a run record ({error})",
            where=folder / RUN_FILE,
            remedy=f"Score it once more: heartllm-eval score {folder}.",
        ) from None


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {part.name for part in dataclasses.fields(kind)}
    return {key: value for key, value in data.items() if key in names}

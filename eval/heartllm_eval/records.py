"""Reads a run's record back from its folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from heartllm import texts
from heartllm.errors import DataError, UsageError
from heartllm_eval.planning import RUN_FILE
from heartllm_eval.schema import SCHEMA_VERSION, Difference, Figure, RunRecord

NO_RUN = "Name a folder that heartllm-eval run has written."
NUMBER = (int, float)
# What readers rely on, where it is there; an older record may lack some.
WHOLE: dict[str, Any] = {
    **dict.fromkeys(("tasks", "systems", "config", "signatures", "settings", "versions", "source", "hardware"), dict),
    **dict.fromkeys(("data", "timing"), dict),
    **dict.fromkeys(("command", "figures", "differences"), list),
    **dict.fromkeys(("finished", "error"), (str, type(None))),
    "status": str,
    "started": str,
    "resumed": int,
}
TASK = {**dict.fromkeys(("title", "kind", "primary", "requests_hash"), str), "metrics": list, "slices": list}
SYSTEM = {"kind": str, "model_args": dict, "model": dict, "training": dict}
SETTINGS: dict[str, Any] = {"resamples": int, "confidence": NUMBER, "bootstrap_seed": int, "notes": list}
FIELDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": NUMBER,
    "int | None": (int, type(None)),
    "float | None": (*NUMBER, type(None)),
}


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
        data = texts.read_json(path)
    except FileNotFoundError:
        raise UsageError(f"the folder holds no {RUN_FILE}", where=folder, remedy=NO_RUN) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Check its permissions.") from None
    except ValueError as error:
        raise DataError(f"not a run record ({error})", where=path, remedy="Run again in another folder.") from None
    if not isinstance(data, dict) or "status" not in data:
        raise DataError("not a run record", where=path, remedy=NO_RUN)
    wrong = _misshapen(data)
    if wrong:
        raise DataError(f"not a run record ({wrong} is no such thing)", where=path, remedy=NO_RUN)
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
        for name, kind in (("figures", Figure), ("differences", Difference)):
            values[name] = tuple(kind(**_typed(kind, part)) for part in values.get(name, ()))
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


def _typed(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a figure or difference; raises TypeError for one of another type."""
    values = _known(kind, data)
    for part in dataclasses.fields(kind):
        if part.name in values and not isinstance(values[part.name], FIELDS[str(part.type)]):
            raise TypeError(f"{kind.__name__.lower()}: {part.name} is {values[part.name]!r}"[:100])
    return values


def _misshapen(data: Mapping[str, Any]) -> str | None:
    """Of a record's parts the first that is not of the type that its readers rely on: "tasks.ptbxl_qa.metrics".

    Tasks and systems are folders, so their names lead nowhere else.
    """
    wanted = [("", data, WHOLE)]
    if not isinstance(data.get("settings", {}), dict):
        return "settings"
    wanted.append(("settings.", data.get("settings", {}), SETTINGS))
    for whole, shape in (("tasks", TASK), ("systems", SYSTEM)):
        entries = data.get(whole, {})
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if not isinstance(entry, dict) or name in ("", "..") or name != PurePath(name).name or "\0" in name:
                return f"{whole}.{name}"
            wanted.append((f"{whole}.{name}.", entry, shape))
    for prefix, part, shape in wanted:
        for name, kind in shape.items():
            if name in part and not isinstance(part[name], kind):
                return f"{prefix}{name}"
    lists = {f"tasks.{name}.{part}": about.get(part, ()) for name, about in data.get("tasks", {}).items()
             for part in ("metrics", "slices")}  # fmt: skip
    lists["command"] = data.get("command", ())
    return next((name for name, items in lists.items() if not all(isinstance(item, str) for item in items)), None)

"""Configuration: frozen dataclasses <-> TOML, strict about what is written in the file.

A misspelt key is an error that names the key, the file and the nearest right spelling; a value of the wrong type is an
error that names both types. Nothing is executed and nothing is guessed.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from heartllm.errors import UsageError, told_of
from heartllm.texts import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - only on Python 3.10
    import tomli as tomllib

T = TypeVar("T")
LARGEST_TOML = 1 << 20  # characters
# A key of a hundred parts ("a.a.a. ..."): the parser takes time quadratic in them.
_DEEP = re.compile(r"(?:\.[^\n=,\[\]{}#.]{1,100}){100}")


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file; errors name the file and the line."""
    try:
        text = read_text(path)
        if len(text) > LARGEST_TOML or _DEEP.search(text):
            raise ValueError("it is too long, or its keys are nested too deep, to be a configuration")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise UsageError("no such file", where=path, remedy="Check the path.") from None
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=path, remedy="Name a TOML file.") from None
    except RecursionError:
        raise UsageError("not valid TOML (nested too deep)", where=path, remedy="Mend the file.") from None
    except ValueError as error:  # no TOML, no UTF-8, or a number of thousands of digits
        raise UsageError(f"not valid TOML ({error})", where=path, remedy="Mend the line it names.") from None


def from_dict(kind: type[T], values: dict[str, Any], *, where: str | Path = "configuration") -> T:
    """Builds the dataclass `kind` from a plain dictionary, recursively.

    Raises:
        UsageError: for unknown keys ("did you mean"), missing keys and values of a wrong type.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(sorted(fields))}."
            raise UsageError(f"unknown key {key!r}", where=where, remedy=hint)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            if type(None) in typing.get_args(hints[name]):
                arguments[name] = None  # as `to_dict` leaves it out
                continue
            raise UsageError(f"missing key {name!r}", where=where, remedy=f"Add {name} = ... to it.")
    try:
        with told_of(where):
            return kind(**arguments)
    except ValueError as error:
        raise UsageError(str(error), where=where, remedy="Correct the value.") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise UsageError(
                f"expected a table, found {type(value).__name__}", where=where, remedy="Write it as a TOML table."
            )
        return from_dict(hint, value, where=where)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        return _convert(next(part for part in inner if part is not type(None)), value, where)
    if origin is typing.Literal:
        if value not in inner:
            near = difflib.get_close_matches(str(value), [str(part) for part in inner], n=1)
            hint_text = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(map(str, inner))}."
            raise UsageError(f"unknown value {value!r}", where=where, remedy=hint_text)
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(
                f"expected a list, found {type(value).__name__}", where=where, remedy="Write it as [a, b]."
            )
        return tuple(_convert(inner[0], part, where) for part in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 1000:
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (hint is not bool and isinstance(value, bool))):
        raise UsageError(
            f"expected {hint.__name__}, found {type(value).__name__} ({value!r:.80})",
            where=where,
            remedy="Correct the value.",
        )
    return value


def load(kind: type[T], path: Path) -> T:
    """Reads the dataclass `kind` from the TOML file at `path`."""
    return from_dict(kind, read_toml(path), where=path)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` with what `above` says: tables are merged key by key, anything else is replaced."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def to_dict(config: Any) -> dict[str, Any]:
    """The plain dictionary of a configuration dataclass; None values are left out (TOML has none)."""
    return {
        name: to_dict(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
        if value is not None
    }


def dumps(config: Any) -> str:
    """The TOML text of a configuration dataclass (tables one level deep or deeper; scalars and lists of scalars)."""
    return _toml(to_dict(config) if dataclasses.is_dataclass(config) else config, prefix="")


def _toml(values: dict[str, Any], prefix: str) -> str:
    lines = [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if not isinstance(value, dict)
    ]
    tables = [
        f"\n[{prefix}{key}]\n{_toml(value, prefix=f'{prefix}{key}.')}"
        for key, value in values.items()
        if isinstance(value, dict)
    ]
    return "\n".join(lines) + ("\n" if lines else "") + "".join(tables)

"""Mutations of small valid files: of bytes, of lines and cells, of JSON and TOML trees, of binary headers.

All draw from one `random.Random`, so that a case is made again from its seed, kind and number.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from fuzzkit import nasty
from fuzzkit.files import Files, Special

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Bytes = Callable[[Random, bytes], bytes]
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_WORD = re.compile(rb"[^\s,;=\[\]{}\"']+")
_SEPARATOR = re.compile(rb"[,;\t =:/|\"']")
TREES = (".json", ".jsonl", ".toml")


def _span(rng: Random, size: int, most: int = 64) -> tuple[int, int]:
    start = rng.randrange(size + 1)
    return start, min(size, start + rng.randint(0, most))


# Bytes -----------------------------------------------------------------------------------------------------------
def flip(rng: Random, data: bytes) -> bytes:
    """A few bytes become others."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if out:
            out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def truncate(rng: Random, data: bytes) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data) + 1)]


def cut(rng: Random, data: bytes) -> bytes:
    """A part is missing."""
    start, end = _span(rng, len(data), 512)
    return data[:start] + data[end:]


def repeat(rng: Random, data: bytes) -> bytes:
    """A part comes twice, or very often."""
    start, end = _span(rng, len(data))
    return data[:end] + data[start:end] * rng.choice((1, 1, 3, 1000)) + data[end:]


def insert(rng: Random, data: bytes) -> bytes:
    """Something odd stands in between."""
    place = rng.randrange(len(data) + 1)
    odd = rng.choice(
        (b"\0", b"\xff", b"\xc3", b"\r", b"\n\n", b"\xef\xbb\xbf", b"\x1a", b"\xed\xa0\x80", b"\x00" * 100)
    )
    return data[:place] + odd + data[place:]


def integers(rng: Random, data: bytes) -> bytes:
    """Four or eight bytes become a number at a border."""
    form = rng.choice(("<i", ">i", "<q", "<H", "<h"))
    size = struct.calcsize(form)
    if len(data) < size:
        return data
    place = rng.randrange(min(len(data) - size, rng.choice((64, 10**9))) + 1)
    limit = 2 ** (8 * size - 1)
    number = rng.choice((0, 1, limit - 1)) if form == "<H" else rng.choice((0, -1, 1, limit - 1, -limit))
    return data[:place] + struct.pack(form, number) + data[place + size :]


def encode(rng: Random, data: bytes) -> bytes:
    """Another encoding, a byte order mark, other line ends."""
    text = data.decode("utf-8", "replace")
    forms: tuple[Callable[[], bytes], ...] = (
        lambda: text.encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + data,
        lambda: (text + "é").encode("latin-1", "replace"),
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: data.replace(b"\n", b"\r"),
        lambda: data.replace(b"\n", "\u2028".encode()),
        lambda: text.encode("utf-32"),
        lambda: b"",
        lambda: b"\0" * len(data),
        lambda: data[::-1],
    )
    return rng.choice(forms)()


# Lines, numbers, words --------------------------------------------------------------------------------------------
def lines(rng: Random, data: bytes) -> bytes:
    """A line is missing, comes twice, or stands elsewhere."""
    parts = data.split(b"\n")
    at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    kind = rng.randrange(6)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts.insert(other, parts[at])
    elif kind == 2:
        parts[at], parts[other] = parts[other], parts[at]
    elif kind == 3:
        parts[at:at] = [parts[at]] * rng.choice((2, 20, 500))
    elif kind == 4:
        parts[at] = parts[at] + parts[other]
    else:
        parts[at] = nasty.text(rng).encode("utf-8", "replace")
    return b"\n".join(parts)


def _replaced(rng: Random, data: bytes, pattern: re.Pattern[bytes], new: bytes) -> bytes:
    """One of the first hits behind a place drawn at random becomes `new`."""
    found = pattern.search(data, rng.randrange(len(data) + 1)) or pattern.search(data)
    return data if found is None else data[: found.start()] + new + data[found.end() :]


def numbers(rng: Random, data: bytes) -> bytes:
    """A number becomes a huge, negative, empty, odd one."""
    return _replaced(rng, data, _NUMBER, nasty.number(rng).encode())


def words(rng: Random, data: bytes) -> bytes:
    """A word becomes a path, a long text, an odd one, or another word of the file."""
    other = _WORD.search(data, rng.randrange(len(data) + 1))
    new = other[0] if other and rng.random() < 0.3 else nasty.text(rng).encode("utf-8", "replace")
    return _replaced(rng, data, _WORD, new)


def separators(rng: Random, data: bytes) -> bytes:
    """A separator or quote is missing, doubled, or another one."""
    return _replaced(
        rng, data, _SEPARATOR, rng.choice((b"", b",", b",,", b";", b"\t", b'"', b"'", b" ", b"=", b"\0", b"["))
    )


def deep(rng: Random, data: bytes) -> bytes:
    """Brackets within brackets, in a line of their own, as a value or at the end."""
    depth = rng.choice((50, 1000, 20_000))
    odd = rng.choice(
        (b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth, b"(" * depth, b"a." * depth + b"a = 1")
    )
    kind = rng.randrange(3)
    if kind == 0:
        return data + b"\n" + odd
    if kind == 1:
        return _replaced(rng, data, _WORD, odd)
    return odd


PLAIN: tuple[Bytes, ...] = (flip, truncate, cut, repeat, insert)
BINARY: tuple[Bytes, ...] = (*PLAIN, integers, integers, integers)
TEXT: tuple[Bytes, ...] = (*PLAIN, encode, lines, lines, numbers, numbers, numbers, words, words, separators, deep)


# Trees ------------------------------------------------------------------------------------------------------------
def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    found, open_ = [], [tree]
    while open_ and len(found) < 5000:
        here = open_.pop()
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            found.append((here, key))
            if isinstance(here[key], dict | list):
                open_.append(here[key])
    return found


def tree(rng: Random, root: Any) -> Any:
    """A value of another type, a key too many, missing or misspelt, a value twice."""
    places = _places(root) if isinstance(root, dict | list) else []
    if not places or rng.random() < 0.03:
        return nasty.value(rng)
    here, key = rng.choice(places)
    kind = rng.randrange(8)
    if kind <= 3:
        here[key] = nasty.value(rng)
    elif kind == 4:
        del here[key]
    elif kind == 5 and isinstance(here, dict):
        here[nasty.text(rng)] = here.pop(key)
    elif kind == 6 and isinstance(here, dict):
        here[nasty.text(rng)[:200]] = nasty.value(rng)
    elif isinstance(here, list):
        here.insert(key, here[key])
    else:
        other, name = rng.choice(places)
        here[key] = json.loads(json.dumps(other[name])) if other is not here else None
    return root


def toml_value(value: Any) -> str:
    """A value as TOML writes it (None as an empty text)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return '""' if value is None else json.dumps(value, ensure_ascii=not isinstance(value, str))


def toml_text(root: Any) -> str:
    """A tree as TOML; every table of the first level under its own heading."""
    if not isinstance(root, dict):
        return toml_value(root)
    plain = {key: value for key, value in root.items() if not isinstance(value, dict)}
    text = "".join(f"{json.dumps(str(key))} = {toml_value(value)}\n" for key, value in plain.items())
    for key in root.keys() - plain.keys():
        inner = "".join(f"{json.dumps(str(name))} = {toml_value(part)}\n" for name, part in root[key].items())
        text += f"[{json.dumps(str(key))}]\n{inner}"
    return text


def document(rng: Random, data: bytes, suffix: str) -> bytes:
    """A JSON, JSONL or TOML file with another tree; the bytes mutated where they are none."""
    if b"a." * 50 in data:  # what `deep` made: parsing it would take gigabytes
        return rng.choice(TEXT)(rng, data)
    try:
        text = data.decode("utf-8")
        if suffix == ".toml":
            return toml_text(tree(rng, tomllib.loads(text))).encode("utf-8", "surrogatepass")
        if suffix == ".json":
            return json.dumps(tree(rng, json.loads(text))).encode()
        rows = text.splitlines(keepends=True)
        at = rng.randrange(len(rows))
        rows[at] = json.dumps(tree(rng, json.loads(rows[at]))) + "\n"
        return "".join(rows).encode()
    except (ValueError, RecursionError):
        return rng.choice(TEXT)(rng, data)


# Binary files with a header ---------------------------------------------------------------------------------------
def safetensors(rng: Random, data: bytes) -> bytes:
    """Another header before the same tensors, with its length told right, mostly."""
    (length,) = struct.unpack("<Q", data[:8])
    try:
        header = json.dumps(tree(rng, json.loads(data[8 : 8 + length]))).encode()
    except ValueError:
        return rng.choice(BINARY)(rng, data)
    told = len(header) if rng.random() < 0.9 else rng.choice((0, 1 << 40, len(header) + 1, 2**64 - 1))
    return struct.pack("<Q", told) + header + data[8 + length :]


def npy(rng: Random, data: bytes) -> bytes:
    """Another shape, type or order before the same numbers."""
    shape = rng.choice(
        ((12, 10**12), (10**30,), (-1, 3), (), (0,), (2, 0, 3), (1,) * 40, (3, 313), (10**6, 10**6), (7,))
    )
    descr = rng.choice(("<f8", "<f4", "|O", "<U4", "<M8[s]", "|b1", "<c16", ">f8", "<u2", "<f2", "|V8", "<i8"))
    stream = io.BytesIO()
    header = {"descr": descr, "fortran_order": rng.random() < 0.3, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + data[128:]


HEADED: dict[str, Bytes] = {".safetensors": safetensors, ".npy": npy}
_TEXT_SUFFIXES = (*TREES, ".csv", ".tsv", ".hea", ".txt", ".md", "")


def content(rng: Random, name: str, data: bytes) -> bytes:
    """One mutation that fits the kind of file."""
    suffix = "." + name.rpartition(".")[2] if "." in name else ""
    if suffix in TREES and rng.random() < 0.6:
        return document(rng, data, suffix)
    if suffix in HEADED and len(data) >= 8 and rng.random() < 0.6:
        return HEADED[suffix](rng, data)
    return rng.choice(TEXT if suffix in _TEXT_SUFFIXES else BINARY)(rng, data)


def folder(rng: Random, files: Files, *, links: bool) -> Files:
    """A file is missing, empty, a folder, a link that leads nowhere (with `links`, out of the folder), or another."""
    if not files:
        return files
    name, other = rng.choice(list(files)), rng.choice(list(files))
    kind = rng.randrange(7 if links else 5)
    if kind == 0:
        return {key: value for key, value in files.items() if key != name}
    new: bytes | Special = files[other]
    if kind == 1:
        new = b""
    elif kind == 2:
        new = Special("folder")
    elif kind == 3:
        new = Special("link", rng.choice((name.rpartition("/")[2], "nowhere")))  # to itself, or nowhere
    elif kind == 5:
        new = Special("link", "../" * (1 + name.count("/")) + "outside/secret")
    elif kind == 6:
        new = Special("pipe")
    return {**files, name: new}


def mutate(rng: Random, files: Files, *, links: bool = False, first: str = "") -> Files:
    """One to four mutations of the files of a case; `first` names the file that is chosen most often."""
    files = dict(files)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if rng.random() < 0.04:
            files = folder(rng, files, links=links)
        name = first if first in files and rng.random() < 0.5 else rng.choice(list(files) or [""])
        held = files.get(name)
        if isinstance(held, bytes):
            files[name] = content(rng, name, held)
    return files

"""The authors' files: `best.pt` and `checkpoint_epoch0.pth`, as `torch.save` writes them, with other things inside."""

from __future__ import annotations

import importlib.util
import io
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch
from fuzzkit import mutations, nasty
from fuzzkit.files import Files
from fuzzkit.kind import Kind

from heartllm.compat.codec import read_codec
from heartllm.compat.language import read_language
from heartllm.language.vocabulary import load_text_tokenizer

_CONFTEST = Path(__file__).resolve().parents[3] / "heartllm" / "compat" / "conftest.py"


@cache
def shapes() -> Any:
    """The tests' own list of what the authors' files hold."""
    spec = importlib.util.spec_from_file_location("authors_shapes", _CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def held() -> tuple[dict[str, Any], dict[str, Any], Path]:
    """What `best.pt` and `checkpoint_epoch0.pth` hold, and the backbone's folder, which is ours to trust."""
    codec = shapes().draw(shapes().codec_shapes(8))
    folder = Path(tempfile.mkdtemp(prefix="fuzz-backbone-"))
    shapes().write_backbone(folder)
    load_text_tokenizer(folder)
    return {"model": codec, "step": 1200}, shapes().write_state(codec, folder), folder


def saved(value: Any) -> bytes:
    """As a file."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def authors_files() -> list[Files]:
    """The tokenizer (twice as often), and the language model beside it."""
    best, language, _ = held()
    codec: Files = {"best.pt": saved(best)}
    return [codec, codec, {**codec, "checkpoint_epoch0.pth": saved(language)}]


def tensor(rng: Random, old: Any) -> Any:
    """Another tensor, or something else, in a tensor's place."""
    kind = rng.randrange(12)
    if kind == 0:
        return nasty.value(rng)
    if kind == 1:
        return old.to(
            rng.choice((torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64))
        )
    if kind == 2:
        return torch.full_like(old, rng.choice((float("nan"), float("inf"), 1e38, 0.0)))
    if kind == 3:  # a number that claims to be billions
        return torch.zeros(1).expand(*rng.choice(((10**9, 4), (10**5, 4), (8000, 4), (10**12,), (2**40, 2, 2))))
    if kind == 4:
        return old.to_sparse()
    if kind == 5:
        return old.reshape(-1)
    if kind == 6:
        return torch.zeros(rng.choice(((0,), (), (4000, 4), (12, 4), (1, 1, 1, 1), (0, 4), (16, 4))))
    if kind == 7:
        return {"x": old}
    if kind == 8:
        return [old]
    if kind == 9:
        return old.t() if old.ndim == 2 else old[:1]
    if kind == 10:
        return torch.nn.Parameter(old)
    return torch.empty(tuple(old.shape), device="meta")


def other(rng: Random, files: Files) -> Files:
    """Another state dict: tensors missing, misnamed, of other types, shapes and claims."""
    best, language, _ = held()
    if "checkpoint_epoch0.pth" in files and rng.random() < 0.8:
        state, name = dict(language), "checkpoint_epoch0.pth"
    else:
        state, name = dict(best["model"]), "best.pt"
    for _ in range(rng.choice((1, 1, 2))):
        key = rng.choice(list(state)) if rng.random() < 0.7 else "dec.expand.weight"
        kind = rng.randrange(8)
        if kind == 0:
            state.pop(key, None)
        elif kind == 1:
            state[nasty.text(rng)] = torch.zeros(2)
        elif kind == 2:
            state[rng.choice((1, None, ("a",), b"x", 2.5))] = torch.zeros(2)
        elif isinstance(state.get(key), torch.Tensor) and state[key].device.type == "cpu" and not state[key].is_sparse:
            state[key] = tensor(rng, state[key])
    value: Any = state
    if name == "best.pt":
        step = rng.choice((1200, 1200, torch.tensor(3), torch.zeros(0), -1, None, 10**40, True, "x", torch.zeros(2, 2)))
        value = rng.choice(
            ({"model": state, "step": step}, {"model": state, "step": 5}, state, [state], {"model": state})
        )
    try:
        return {**files, name: saved(value)}
    except (RuntimeError, NotImplementedError, UnicodeEncodeError):
        return files


def members(rng: Random, files: Files) -> Files:
    """A member of the archive with other bytes, packed, missing, twice, or of another name."""
    name = rng.choice(list(files))
    data = files[name]
    assert isinstance(data, bytes)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(part.filename, archive.read(part)) for part in archive.infolist()]
    at = next((n for n, (part, _) in enumerate(parts) if part.endswith("data.pkl")), 0)
    at = at if rng.random() < 0.7 else rng.randrange(len(parts))
    kind = rng.randrange(6)
    if kind == 0:
        del parts[at]
    elif kind == 1:
        parts[at] = (rng.choice(("../x", "/etc/x", "data.pkl", "archive/data/0")), parts[at][1])
    else:
        parts[at] = (parts[at][0], rng.choice(mutations.BINARY)(rng, parts[at][1]))
    packing = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for part, content in parts:
            archive.writestr(part, content)
    return {**files, name: stream.getvalue()}


def read_authors(folder: Path, rng: Random) -> None:
    """As `heartllm import` reads them."""
    codec = read_codec(folder / "best.pt", rng.choice(("mimic", "ptbxl")))
    if (folder / "checkpoint_epoch0.pth").exists():
        read_language(folder / "checkpoint_epoch0.pth", held()[2], codec, base=rng.choice(("file", "backbone")))


FIRST = ("best.pt", "best.pt", "checkpoint_epoch0.pth")
AUTHORS = Kind("authors", authors_files, read_authors, FIRST, (other, members), 0.75)

KINDS: Sequence[Kind] = (AUTHORS,)

"""Checkpoint folders, token stores and frozen runs: the manifest is made right again, as an attacker would."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzzkit.files import Files, collect
from fuzzkit.kind import Kind

from heartllm.checkpoint import (
    CheckpointConfig,
    load_frontend,
    new_language,
    save_frontend,
    save_language,
    write_manifest,
)
from heartllm.codec.codec import Codec, CodecConfig
from heartllm.codec.store import TokenStore
from heartllm.config import to_dict
from heartllm.data.answers import FILE, read_answers, write_answers
from heartllm.frontends import build
from heartllm.language.model import LanguageConfig, TinyConfig
from heartllm.language.vocabulary import train_text_tokenizer
from heartllm.responder import Responder
from heartllm.untrusted import inside

CODEC = CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "continuous": {"codec": to_dict(CODEC), "width": 5},
    "test": {"width": 8, "channels": 6, "layers": 2},
    "clip": {"channels": 2, "blocks": 1, "embedding": 8, "heads": 2, "text_width": 6},
    "time_llm": {"embedding": 8, "heads": 2, "head_width": 4, "prototypes": 5, "rows": 20},
    "ecg_byte": {"merges": 5},
}


def checkpoints() -> list[Files]:
    """A model that nobody trained, a front-end with soft tokens, stores of codes and of values."""
    found = []
    tokenizer = train_text_tokenizer(["Question: Does this ECG show it? Answer: yes"] * 3, 270)
    tiny = TinyConfig(hidden=16, layers=1, heads=2, feedforward=24, vocabulary=270, local_layers=1)
    config = CheckpointConfig(CODEC, LanguageConfig(tiny=tiny), len(tokenizer), stage="tuning")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "checkpoint"
        save_frontend(Codec(CODEC).eval(), path)
        save_language(path, new_language(config, tokenizer).eval(), config, {})
        write_answers(path / FILE, {"yes": 3, "no": 2})
        write_manifest(path)
        found.append(_below("checkpoint", path))
        for kind, settings in FRONT_ENDS.items():
            path = Path(name) / kind
            save_frontend(build(kind, dict(settings)).eval(), path)
            write_manifest(path)
            found.append(_below("frontend", path))
        for held, array in (
            ("codes", np.zeros((3, 1, 20), np.uint16)),
            ("values", np.zeros((3, 1, 20, 5), np.float16)),
        ):
            path = Path(name) / held
            path.mkdir()
            np.save(path / f"{held}.npy", array)
            manifest = {
                "schema": 1,
                "codec": "c",
                "dataset": "d",
                "data": "x",
                "shape": list(array.shape),
                "holds": held,
            }
            (path / "manifest.json").write_text(json.dumps({**manifest, "keys": ["a", "b", "c"]}))
            found.append(_below("store", path))
    return found


def _below(name: str, folder: Path) -> Files:
    return {f"{name}/{part}": content for part, content in collect(folder).items()}


def right_hashes(rng: Random, files: Files) -> Files:
    """The manifest names every file with the hash that it has."""
    top = next(iter(files), "").partition("/")[0]
    if top not in ("checkpoint", "frontend") or not isinstance(files.get(f"{top}/manifest.json"), bytes):
        return files
    hashes = {
        name.removeprefix(f"{top}/"): hashlib.sha256(content).hexdigest()
        for name, content in files.items()
        if isinstance(content, bytes) and name.startswith(f"{top}/") and not name.endswith("manifest.json")
    }
    return {**files, f"{top}/manifest.json": json.dumps({"schema": 1, "files": hashes}).encode()}


def named(rng: Random, files: Files) -> Files:
    """A manifest that names files elsewhere."""
    top = next(iter(files)).partition("/")[0]
    text = files.get(f"{top}/manifest.json")
    if top == "store" or not isinstance(text, bytes):
        return files
    manifest = json.loads(text)
    odd = rng.choice(
        ("../outside/secret", "../../outside/secret", "/etc/hostname", "text", "", ".", "a\0b", "x" * 5000)
    )
    manifest["files"][odd] = rng.choice((hashlib.sha256(b"not yours").hexdigest(), "", 1, None))
    return {**files, f"{top}/manifest.json": json.dumps(manifest).encode()}


def read_folder(folder: Path, rng: Random) -> None:
    """As `heartllm ask`, `tokenize` and `pretrain` read them."""
    if (folder / "store").exists():
        store = TokenStore.open(folder / "store", rng.choice((None, "c")))
        for key in list(store.keys())[:3]:
            store.of(key)
    elif (folder / "frontend").exists():
        load_frontend(folder / "frontend")
    else:
        Responder.load(folder / "checkpoint")
        if (folder / "checkpoint" / FILE).is_file():
            read_answers(inside(folder / "checkpoint", FILE))


FIRST = ("checkpoint/checkpoint.toml", *["frontend/frontend.toml"] * len(FRONT_ENDS), *["store/manifest.json"] * 2)
CHECKPOINTS = Kind("checkpoints", checkpoints, read_folder, FIRST, (named,), 0.05, right_hashes, links=True)

KINDS: Sequence[Kind] = (CHECKPOINTS,)

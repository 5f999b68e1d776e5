"""Recipes, and the other TOML files that a user may write or be given: prompts, codecs, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from random import Random

from fuzzkit import nasty
from fuzzkit.files import Files
from fuzzkit.kind import Kind

from heartllm.checkpoint import CheckpointConfig
from heartllm.codec.codec import CodecConfig
from heartllm.compat.prompts import load_prompts
from heartllm.config import dumps, load
from heartllm.language.model import LanguageConfig
from heartllm.recipe import load_recipe

BASED = """base = "below.toml"
repeat = ["ptbxl=3"]

[questions]
per_cell = 3

[frontend]
kind = "continuous"
"""


def settings() -> list[Files]:
    """A bundled recipe, one on top of another, prompts, a codec's and a checkpoint's configuration."""
    recipes = Path(str(resources.files("heartllm") / "recipes"))
    prompts = Path(str(resources.files("heartllm.compat") / "prompts.toml"))
    codec = CodecConfig()
    return [
        {"recipe.toml": (recipes / "tiny.toml").read_bytes()},
        {"recipe.toml": BASED.encode(), "below.toml": (recipes / "tiny.toml").read_bytes()},
        {"recipe.toml": b'base = "tiny"\n[tuning.loop]\nsteps = 5\n'},
        {"prompts.toml": prompts.read_bytes()},
        {"codec.toml": dumps(codec).encode()},
        {"checkpoint.toml": dumps(CheckpointConfig(codec, LanguageConfig(), 300)).encode()},
    ]


def bases(rng: Random, files: Files) -> Files:
    """A base that is not there, is the recipe itself, is no recipe, or lies elsewhere."""
    if "recipe.toml" not in files:
        return files
    odd = rng.choice(
        ("recipe.toml", "below.toml", "../outside/secret", "../outside/secret.toml", "", ".toml", nasty.text(rng))
    )
    text = files["recipe.toml"]
    assert isinstance(text, bytes)
    kept = b"\n".join(line for line in text.split(b"\n") if not line.startswith(b"base"))
    first = f"base = {nasty_toml(odd)}\n".encode("utf-8", "replace")
    return {**files, rng.choice(("recipe.toml", "below.toml")): first + kept}


def nasty_toml(text: str) -> str:
    """A text as TOML writes it."""
    from fuzzkit.mutations import toml_value

    return toml_value(text)


def read_settings(folder: Path, rng: Random) -> None:
    """Each file by its reader."""
    if (folder / "prompts.toml").exists():
        load_prompts(folder / "prompts.toml")
    elif (folder / "codec.toml").exists():
        load(CodecConfig, folder / "codec.toml")
    elif (folder / "checkpoint.toml").exists():
        load(CheckpointConfig, folder / "checkpoint.toml")
    else:
        load_recipe(str(folder / "recipe.toml")).repeats()


SETTINGS = Kind(
    "recipes",
    settings,
    read_settings,
    ("recipe.toml", "recipe.toml", "recipe.toml", ""),
    (bases,),
    0.1,
    also=("/etc/hostname: ",),
    elsewhere=True,
)

KINDS: Sequence[Kind] = (SETTINGS,)

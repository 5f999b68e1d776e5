"""How each kind of front-end is trained, and the `[frontend]` table of a recipe.

    [frontend]
    kind = "clip"              # of heartllm.frontends.KINDS; "fsq" where the table is left out
    [frontend.clip]
    batch = 64
    [frontend.clip.config]     # its config_type
    [frontend.clip.loop]       # a LoopConfig

`fsq` and `continuous` are trained as `[tokenizer]` says, both alike; `[frontend.continuous]` may change what it wants.
A trainer is a function of this form, found by name in `TRAINERS` and imported on use:

    train_<kind>(config, loop, train, valid, folder, *, reports, text, batch) -> (front-end, log)

with train and valid recordings (R, 12, 5000) int16 microvolts, a folder for the state of a run that is stopped, the
reports of the training recordings (None where one has none) and the text side (None unless `--text` names one). A
trainer may further have the keywords `crop`, in samples, and `valid_reports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from heartllm.config import from_dict, merge, to_dict
from heartllm.errors import UsageError
from heartllm.frontends import KINDS, frontend_class
from heartllm.frontends.base import FrontEnd
from heartllm.training.loop import LoopConfig
from heartllm.training.tokenizer import TokenizerRecipe, Waveforms

TRAINERS = {
    "fsq": "heartllm.training.tokenizer:train_fsq",
    "continuous": "heartllm.training.tokenizer:train_continuous",
    "test": "heartllm.training.test:train_test",
    "clip": "heartllm.training.clip:train_clip",
    "time_llm": "heartllm.training.time_llm:train_time_llm",
    "ecg_byte": "heartllm.training.ecg_byte:train_ecg_byte",
}


@dataclass(frozen=True)
class Schedule:
    """How long a front-end trains: `batch` items a step, of `crop` samples (0: whole recordings)."""

    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=2500, learning_rate=1e-3, warmup=100))
    batch: int = 32
    crop: int = 0


@dataclass(frozen=True)
class FrontEndRecipe:
    """A kind of front-end, its settings, and how it is trained."""

    kind: str
    config: Any
    schedule: Schedule

    def on(self, device: str | None) -> FrontEndRecipe:
        """The same on another device; as it is for None."""
        if device is None:
            return self
        return replace(self, schedule=replace(self.schedule, loop=replace(self.schedule.loop, device=device)))

    def train(
        self,
        train: Waveforms,
        valid: Waveforms,
        folder: Path,
        *,
        reports: Sequence[str | None] | None = None,
        valid_reports: Sequence[str | None] | None = None,
        text: Any = None,
    ) -> tuple[FrontEnd, list[dict[str, Any]]]:
        """Trains it; see the module's text."""
        module, _, name = TRAINERS[self.kind].partition(":")
        trainer: Callable[..., tuple[FrontEnd, list[dict[str, Any]]]] = getattr(import_module(module), name)
        how = self.schedule
        known = signature(trainer).parameters
        if how.crop and "crop" not in known:
            raise UsageError("is trained on whole recordings", where=f"frontend.{self.kind}", remedy="Leave out crop.")
        more = {"crop": how.crop, "valid_reports": valid_reports}
        more = {name: value for name, value in more.items() if name in known and value}
        return trainer(self.config, how.loop, train, valid, folder, reports=reports, text=text, batch=how.batch, **more)


def frontend_recipe(table: Mapping[str, Any], tokenizer: TokenizerRecipe, where: str | Path) -> FrontEndRecipe:
    """Reads a recipe's `[frontend]` table.

    Raises:
        UsageError: for unknown kinds, keys and values.
    """
    kind = table.get("kind", "fsq")
    if not isinstance(kind, str):
        raise UsageError("kind is not a string", where=f"{where}: frontend", remedy=f"One of: {', '.join(KINDS)}.")
    ours = {"loop": to_dict(tokenizer.loop), "batch": tokenizer.batch, "crop": tokenizer.crop}
    codec = to_dict(tokenizer.codec)
    start: dict[str, dict[str, Any]] = {
        "fsq": {**ours, "config": codec},
        "continuous": {**ours, "config": {"codec": codec}},
    }

    def read(name: str) -> FrontEndRecipe:
        config_type = frontend_class(name, f"{where}: frontend").config_type
        place, own = f"{where}: frontend.{name}", table.get(name, {})
        if name == "fsq" and own:
            raise UsageError("has no settings of its own", where=place, remedy="Those of the codec are in [tokenizer].")
        if not isinstance(own, dict):
            raise UsageError("is not a table", where=place, remedy="Write its settings as a TOML table.")
        values = merge(start.get(name, {}), own)
        config: Any = from_dict(config_type, values.pop("config", {}), where=f"{place}.config")
        return FrontEndRecipe(name, config, from_dict(Schedule, values, where=place))

    # Tables of other kinds, of a base for one, are read too: no mistake sleeps in them.
    return {name: read(name) for name in ({kind, *table} - {"kind"})}[kind]

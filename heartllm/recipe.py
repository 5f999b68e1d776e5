"""A recipe: every setting of the three stages, as TOML. `recipes/tiny.toml` is the one of the reference checkpoint.

A recipe may be another one with a few changes. It then begins with `base = "tiny"`, the name of a bundled recipe, or
with a path relative to its own folder (`base = "mine.toml"`), and holds only what differs: tables are merged key by
key, lists and values replaced.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from heartllm.config import from_dict, merge, read_toml
from heartllm.errors import UsageError
from heartllm.language.model import LanguageConfig
from heartllm.training.frontends import FrontEndRecipe, frontend_recipe
from heartllm.training.language import LanguageRecipe
from heartllm.training.loop import LoopConfig
from heartllm.training.objective import Weights
from heartllm.training.tokenizer import TokenizerRecipe


@dataclass(frozen=True)
class QuestionSettings:
    """Which questions a model is tuned on.

    Attributes:
        per_cell: recordings drawn for one answer to one question, see `heartllm.data.questions`.
        draws: independent draws; every second one in paraphrased wording.
        verify_draws: further draws of template 1 alone ("Does this ECG show symptoms of ...?"): dense questions whose
            answers keep the proportions of the other draws.
        no_per_yes: "no" drawn for each "yes" of a verify question; 2 as in ECG-QA.
        min_positives: recordings an attribute needs to be asked about.
        ask: tune on questions. reports: tune on writing reports; both together, or one of them.
        report_copies: how often a report stands among the questions of its recording, of which a sequence draws some.
        features: show the patient features (TAB).
        min_findings: recordings a finding needs to be a reading target.
    """

    per_cell: int = 60
    draws: int = 4
    verify_draws: int = 0
    no_per_yes: float = 2.0
    min_positives: int = 4
    ask: bool = True
    reports: bool = True
    report_copies: int = 1
    features: bool = True
    min_findings: int = 12


@dataclass(frozen=True)
class Recipe:
    """All three stages.

    Attributes:
        repeat: how often a dataset's recordings come up in one pass, as "name=3".
        views: tokenisations of each training recording.
        recordings: at most so many training recordings of each dataset for the language model, the same ones in every
            larger choice (whole patients, in an order drawn once); 0 for all. The front-end sees all.
        pretrain: whether there is a forecasting stage; without it tuning starts from the front-end.
        frontend: what the language model is fed, the codec's codes unless the recipe says otherwise; see
            `heartllm.training.frontends`.
    """

    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    questions: QuestionSettings = field(default_factory=QuestionSettings)
    forecasting: LanguageRecipe = field(
        default_factory=lambda: LanguageRecipe(loop=LoopConfig(steps=1000), weights=Weights(answer=0.0, forecast=1.0))
    )
    tuning: LanguageRecipe = field(default_factory=lambda: LanguageRecipe(loop=LoopConfig(steps=1000)))
    views: int = 4
    recordings: int = 0
    repeat: tuple[str, ...] = ()
    pretrain: bool = True
    frontend: FrontEndRecipe = field(default_factory=lambda: frontend_recipe({}, TokenizerRecipe(), "recipe"))

    def __post_init__(self) -> None:
        self.repeats()

    def repeats(self) -> dict[str, int]:
        """Dataset name -> appearances in one pass."""
        result = {}
        for item in self.repeat:
            name, _, count = item.partition("=")
            if not count.isdigit() or int(count) < 1:
                raise UsageError(f"{item!r} is not name=count", where="repeat", remedy='Write it as "ptbxl=3".')
            result[name] = int(count)
        return result


def load_recipe(name: str) -> Recipe:
    """A recipe by bundled name ("tiny") or by path of a TOML file.

    Raises:
        UsageError: naming the file and the key, also where they are those of a base.
    """
    return _build(*_read(_find(name, Path(), "--recipe"), ()))


def _bundled(name: str) -> Path:
    return Path(str(resources.files("heartllm").joinpath("recipes", f"{name}.toml")))


def _find(name: str, folder: Path, where: str) -> Path:
    bundled = {item.stem: item for item in sorted(_bundled("").parent.glob("*.toml"))}
    path = folder / name if name.endswith(".toml") else bundled.get(name, folder / name)
    if not os.path.isfile(path):  # False, too, for what is no name of a file
        known = ", ".join(bundled)
        raise UsageError(f"no recipe {name!r}", where=where, remedy=f"Bundled: {known}; or give a TOML file.")
    return path


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], Path]:
    """The keys of a recipe over those of its bases. Each base is checked by itself, so that errors name its file."""
    if path.resolve() in above:
        loop = " -> ".join(part.name for part in (*above, path))
        raise UsageError(f"recipes are based on each other ({loop})", where=path, remedy="Break the loop.")
    values = read_toml(path)
    base = values.pop("base", None)
    if base is None:
        return values, path
    if not isinstance(base, str):
        raise UsageError("is not a string", where=f"{path}: base", remedy="Name a bundled recipe or a TOML file.")
    below, source = _read(_find(base, path.parent, f"{path}: base"), (*above, path.resolve()))
    _build(below, source)
    return merge(below, values), path


def _build(values: dict[str, Any], path: Path) -> Recipe:
    table = values.get("frontend", {})
    if not isinstance(table, dict):
        raise UsageError("is not a table", where=f"{path}: frontend", remedy='Write [frontend] and kind = "...".')
    recipe = from_dict(Recipe, {key: value for key, value in values.items() if key != "frontend"}, where=path)
    return replace(recipe, frontend=frontend_recipe(table, recipe.tokenizer, path))


__all__ = ["QuestionSettings", "Recipe", "load_recipe"]

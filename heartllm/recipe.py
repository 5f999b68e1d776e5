"""A recipe: every setting of the three stages, as TOML. `recipes/tiny.toml` is the one of the reference checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from heartllm.config import from_dict, load
from heartllm.errors import UsageError
from heartllm.language.model import LanguageConfig
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
    """All three stages. `repeat` says how often a dataset's recordings come up in one pass, as "name=3"."""

    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    questions: QuestionSettings = field(default_factory=QuestionSettings)
    forecasting: LanguageRecipe = field(
        default_factory=lambda: LanguageRecipe(loop=LoopConfig(steps=1000), weights=Weights(answer=0.0, forecast=1.0))
    )
    tuning: LanguageRecipe = field(default_factory=lambda: LanguageRecipe(loop=LoopConfig(steps=1000)))
    views: int = 4
    repeat: tuple[str, ...] = ()

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
    """A recipe by bundled name ("tiny") or by path of a TOML file."""
    bundled = resources.files("heartllm").joinpath("recipes", f"{name}.toml")
    path = Path(name) if name.endswith(".toml") or not bundled.is_file() else Path(str(bundled))
    if not path.is_file():
        known = sorted(
            item.name[:-5]
            for item in resources.files("heartllm").joinpath("recipes").iterdir()
            if item.name.endswith(".toml")
        )
        raise UsageError(
            f"no recipe {name!r}", where="--recipe", remedy=f"Bundled: {', '.join(known)}; or give a TOML file."
        )
    return load(Recipe, path)


__all__ = ["QuestionSettings", "Recipe", "from_dict", "load_recipe"]

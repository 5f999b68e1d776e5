"""The recipes of the tables' rows: each differs from the reference recipe in what its name says, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from heartllm.frontends.continuous import ContinuousConfig
from heartllm.recipe import Recipe, load_recipe

FOLDER = Path(__file__).parents[2] / "reports" / "recipes"
DIFFERENCES: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "without_tab": {"questions.features": False},
    "without_forecasting": {"pretrain": False, "tuning.weights.forecast": 0.0},
    "without_forecast_term": {"forecasting.weights.forecast": 0.0, "tuning.weights.forecast": 0.0},
    "without_disc": {"frontend.kind": "continuous"},
    "without_disc_narrow": {"frontend.kind": "continuous"},
    "opaque_rows": {"language.rows": "opaque"},
    "paper_network_shared": {"tokenizer.codec.network": "paper"},
    "paper_network_separate": {"tokenizer.codec.network": "paper", "tokenizer.codec.lead_weights": "separate"},
    "zscore": {"tokenizer.codec.scale": "zscore"},
    "windowed_forecasting": {"forecasting.windows": "authors"},
    "separate_tuning_questions": {"questions.reports": False, "tuning.loop.steps": "half"},
    "separate_tuning_reports": {"questions.ask": False, "tuning.loop.steps": "half"},
    "without_reading": {
        "forecasting.weights.forecast": 1.0,
        "forecasting.weights.reading": 0.0,
        "forecasting.weights.matching": 0.0,
        "tuning.weights.forecast": 0.0,
        "tuning.weights.reading": 0.0,
        "tuning.weights.matching": 0.0,
    },
    "test": {"frontend.kind": "test"},
    "clip": {"frontend.kind": "clip"},
    "time_llm": {"frontend.kind": "time_llm"},
    "ecg_byte": {"frontend.kind": "ecg_byte"},
    "recordings_100": {"recordings": 100},
    "recordings_400": {"recordings": 400},
    "narrow": {"language.tiny.hidden": 64, "language.tiny.feedforward": 192},
    "wide": {"language.tiny.hidden": 192, "language.tiny.feedforward": 576},
}


def settings(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting of a recipe by its dotted key; the front-end's own are told by the front-end's tests."""
    if not is_dataclass(value):
        return {prefix: value}
    found: dict[str, Any] = {}
    for field in fields(value):
        if prefix == "frontend" and field.name != "kind":
            continue
        found |= settings(getattr(value, field.name), f"{prefix}.{field.name}" if prefix else field.name)
    return found


def differences(recipe: Recipe, base: Recipe) -> dict[str, Any]:
    mine, theirs = settings(recipe), settings(base)
    return {key: value for key, value in mine.items() if value != theirs[key]}


def test_every_row_is_listed_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(DIFFERENCES)


@pytest.mark.parametrize("name", list(DIFFERENCES))
def test_a_row_differs_in_what_its_name_says(name: str) -> None:
    base, recipe = load_recipe("tiny"), load_recipe(str(FOLDER / f"{name}.toml"))
    expected = dict(DIFFERENCES[name])
    if expected.get("tuning.loop.steps") == "half":
        expected["tuning.loop.steps"] = base.tuning.loop.steps // 2
    assert differences(recipe, base) == expected


def test_the_codec_of_a_row_is_what_its_front_end_trains() -> None:
    for name in ("paper_network_separate", "zscore"):
        recipe = load_recipe(str(FOLDER / f"{name}.toml"))
        assert recipe.frontend.config == recipe.tokenizer.codec


def test_the_row_without_codes_differs_in_the_quantiser_alone() -> None:
    base = load_recipe("tiny").frontend
    for name, width in (("without_disc", 64), ("without_disc_narrow", 4)):
        row = load_recipe(str(FOLDER / f"{name}.toml")).frontend
        assert row.schedule == base.schedule
        assert row.config == ContinuousConfig(base.config, width)

"""Recipes on top of other recipes, and the front-end that they name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from heartllm.codec.codec import CodecConfig
from heartllm.errors import UsageError
from heartllm.recipe import load_recipe


def write(folder: Path, text: str, name: str = "mine.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_a_recipe_is_its_base_with_a_few_changes(tmp_path: Path) -> None:
    base = load_recipe("tiny")
    found = load_recipe(write(tmp_path, 'base = "tiny"\nrepeat = []\n[tuning.loop]\nsteps = 7\n'))
    assert found == replace(base, repeat=(), tuning=replace(base.tuning, loop=replace(base.tuning.loop, steps=7)))


def test_bases_are_named_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, 'base = "tiny"\nviews = 2\n[questions]\ndraws = 9\n', "below.toml")
    above = load_recipe(write(tmp_path / "deep", 'base = "../below.toml"\nviews = 3\n'))
    assert (above.views, above.questions.draws, above.questions.per_cell) == (3, 9, 60)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base = "tinny"', r"mine\.toml: base: no recipe 'tinny'.*Bundled: .*tiny"),
        ("base = 3", r"mine\.toml: base: is not a string"),
        ('base = "mine.toml"', r"mine\.toml -> mine\.toml"),
        ('base = "bad.toml"\nviews = 1', r"bad\.toml: unknown key 'vews'.*'views'"),
        ('base = "tiny"\n[tuning.loop]\nstep = 3', r"mine\.toml: tuning: loop: unknown key 'step'.*'steps'"),
        ("frontend = 'clip'", r"mine\.toml: frontend: is not a table"),
        ("[frontend]\nkind = 'fqs'", r"mine\.toml: frontend: unknown kind of front-end 'fqs'.*'fsq'"),
        ("[frontend]\nkind = 3", "kind is not a string"),
        ("[frontend.continuous.config]\nwidht = 3", r"mine\.toml: frontend\.continuous\.config: unknown key 'widht'"),
        ("[frontend.continuous]\nbatches = 3", r"frontend\.continuous: unknown key 'batches'"),
        ("[frontend.fsq]\nbatch = 3", r"frontend\.fsq: has no settings of its own.*\[tokenizer\]"),
    ],
)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "vews = 2", "bad.toml")
    with pytest.raises(UsageError, match=message):
        load_recipe(write(tmp_path, text))


def test_loops_over_several_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 'base = "mine.toml"', "other.toml")
    with pytest.raises(UsageError, match=r"mine\.toml -> other\.toml -> mine\.toml"):
        load_recipe(write(tmp_path, 'base = "other.toml"'))


def test_the_front_end_without_codes_trains_as_the_codec_does(tmp_path: Path) -> None:
    text = 'base = "tiny"\n[frontend]\nkind = "continuous"\n[frontend.continuous.config]\nwidth = 8\n'
    found, base = load_recipe(write(tmp_path, text)).frontend, load_recipe("tiny").frontend
    assert (base.kind, found.kind) == ("fsq", "continuous")
    assert found.schedule == base.schedule
    assert found.schedule.crop == 1280
    assert isinstance(base.config, CodecConfig)
    assert (found.config.codec, found.config.width) == (base.config, 8)

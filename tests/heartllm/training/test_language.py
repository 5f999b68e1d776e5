"""The language-model stage: the authors' windows, resuming, and that tuning opens no waveform."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.checkpoint import save_frontend, write_manifest
from heartllm.codec.codec import Codec, CodecConfig
from heartllm.language.packing import IGNORED, pack
from heartllm.language.prompts import prefix_ids
from heartllm.training.examples import Drawing, Examples
from heartllm.training.language import AUTHORS_WINDOWS, LanguageRecipe, keep_windows, train_language
from heartllm.training.loop import LoopConfig
from heartllm.training.objective import Weights


def test_the_authors_windows_carry_58_labels_in_1585_positions(vocabulary: Any) -> None:
    """283+30, 142+15, 70+7, 35+4 and 17+2 codes: figures of their released code at 313 codes."""
    codes = np.random.default_rng(0).integers(0, 36, 313)
    prefix, span = prefix_ids(vocabulary, "", codes)
    sequence = pack(prefix, [], span)
    seen: dict[int, int] = {}
    for seed in range(200):
        cut = keep_windows(sequence, np.random.default_rng(seed))
        targets = np.flatnonzero(cut.forecast != IGNORED)
        seen[len(cut.ids)] = len(targets)
        assert targets.tolist() == list(range(len(cut.ids) - len(targets), len(cut.ids)))
        assert (cut.forecast[targets[:-1]] == cut.ids[targets[1:]]).all()
        assert cut.positions.tolist() == list(range(len(cut.ids)))
    assert seen == {context + step: step for context, step in AUTHORS_WINDOWS}
    assert sum(seen.values()) == 58


def test_a_window_longer_than_the_recording_takes_all_of_it(vocabulary: Any) -> None:
    prefix, span = prefix_ids(vocabulary, "", np.arange(10))
    for seed in range(20):
        cut = keep_windows(pack(prefix, [], span), np.random.default_rng(seed))
        assert 1 <= (cut.forecast != IGNORED).sum() <= 10


RECIPE = LanguageRecipe(
    LoopConfig(steps=6, evaluate_every=3, warmup=1, save_seconds=1e9), Weights(1.0, 0.1, 1.0), Drawing(crop=3), batch=4
)


@pytest.mark.parametrize(
    ("train", "drawing", "windows"),
    [
        ("all", Drawing(crop=3), "dense"),
        ("lora", Drawing(crop=3), "dense"),
        ("all", Drawing(blind=True), "dense"),
        ("all", Drawing(questions=0), "authors"),
    ],
)
def test_an_interrupted_stage_ends_as_an_uninterrupted_one(
    examples: Examples,
    make_model: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    train: Any,
    drawing: Drawing,
    windows: Any,
) -> None:
    recipe = replace(RECIPE, drawing=drawing, windows=windows)
    whole, parts = make_model(train=train), make_model(train=train)
    log = train_language(whole, recipe, examples, examples, tmp_path / "whole", title="t")
    assert [entry["step"] for entry in log] == [3, 6]
    from heartllm.training import objective

    calls, original = [0], objective.language_losses

    def press(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(objective, "language_losses", press)
    with pytest.raises(KeyboardInterrupt):
        train_language(parts, recipe, examples, examples, tmp_path / "parts", title="t")
    parts = make_model(train=train)
    again = train_language(parts, recipe, examples, examples, tmp_path / "parts", title="t")
    for (name, a), (_, b) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert [{**entry, "seconds": 0} for entry in log] == [{**entry, "seconds": 0} for entry in again]


LISTEN = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from heartllm.cli import main
try:
    main()
finally:
    with open("opened.txt", "w") as file:
        file.write("\\n".join(opened))
"""
SMALL = """
[language.tiny]
hidden = 32
layers = 2
heads = 2
feedforward = 48
vocabulary = 320
[questions]
per_cell = 10
draws = 1
min_positives = 2
min_findings = 2
[tuning]
batch = 2
valid_ecgs = 2
[tuning.loop]
steps = 2
evaluate_every = 2
"""


@pytest.mark.slow
def test_tuning_never_opens_a_waveform(tmp_path: Path) -> None:
    from heartllm.data.synthetic import write_site
    from heartllm.recipe import load_recipe

    (tmp_path / "small.toml").write_text(SMALL)
    write_site("a", tmp_path / "data", recordings=60, seed=0, workers=1)
    torch.manual_seed(0)
    save_frontend(Codec(CodecConfig(decoder_width=16)), tmp_path / "codec")
    write_manifest(tmp_path / "codec")
    from heartllm.pipeline import find_dataset, tokenize_stage

    dataset = find_dataset("synthetic-a", [tmp_path / "data"])
    recipe = replace(load_recipe(str(tmp_path / "small.toml")), views=1)
    tokenize_stage(recipe, tmp_path / "codec", [dataset], tmp_path / "tokens", say=lambda line: None)
    waveforms = [path for path in (tmp_path / "data").rglob("*") if path.suffix in (".dat", ".mat", ".hea")]
    assert len(waveforms) >= 60
    (tmp_path / "listen.py").write_text(LISTEN)
    command = "tune -d synthetic-a --data_root data --tokens tokens --from codec --out out --recipe small.toml"
    done = subprocess.run(
        [sys.executable, "listen.py", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    opened = (tmp_path / "opened.txt").read_text().splitlines()
    assert any(path.endswith("codes.npy") for path in opened)  # the hook hears what is opened
    assert [path for path in opened if path.endswith((".dat", ".mat", ".hea"))] == []
    assert (tmp_path / "out" / "manifest.json").exists()

"""Codec training on a tiny case: waveform cache, learning, early stop, and the same weights after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError
from heartllm.frontends.continuous import ContinuousConfig
from heartllm.training import tokenizer
from heartllm.training.loop import LoopConfig
from heartllm.training.tokenizer import (
    TokenizerRecipe,
    Waveforms,
    cache_waveforms,
    lead_deviations,
    millivolts,
    reconstruction_figures,
    train_continuous,
    train_fsq,
)

RECIPE = TokenizerRecipe(
    codec=CodecConfig(decoder_width=8),
    loop=LoopConfig(steps=8, learning_rate=5e-3, warmup=2, evaluate_every=2),
    batch=2,
    crop=160,
)


def waves(count: int, samples: int = 640, seed: int = 0) -> Waveforms:
    """(R, 12, samples) microvolts: sines of drawn frequency and amplitude."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 500
    frequency, gain = rng.uniform(1, 4, (count, 1, 1)), rng.uniform(0.2, 1.0, (count, 12, 1))
    return np.round(1000 * gain * np.sin(2 * np.pi * frequency * time)).astype(np.int16)


def train_codec(
    recipe: TokenizerRecipe, train: Waveforms, valid: Waveforms, folder: Path
) -> tuple[Codec, list[dict[str, Any]]]:
    return train_fsq(recipe.codec, recipe.loop, train, valid, folder, batch=recipe.batch, crop=recipe.crop)


def weights(codec: Codec) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in codec.state_dict().items()}


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Ctrl-C at the given reading of crops."""
    real: Callable[..., torch.Tensor] = tokenizer.millivolts
    calls = iter(range(1, 1000))

    def read(*arguments: object) -> torch.Tensor:
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(tokenizer, "millivolts", read)


def test_cache_keeps_microvolts(tmp_path: Path) -> None:
    signals = [np.full((12, 5000), value, np.float32) for value in (0.1234, -2.5, 99.0)]
    cached = cache_waveforms((Recording(signal, 500.0) for signal in signals), 5, tmp_path / "w.npy")
    assert cached.shape == (3, 12, 5000)  # two of the five could not be read
    assert cached.dtype == np.int16
    assert cached[:, 0, 0].tolist() == [123, -2500, 32767]
    assert not cached.flags.writeable
    crops = millivolts(cached, np.array([1, 0]), np.array([0, 4000]), 32)
    assert crops.shape == (2, 12, 32)
    assert crops[:, 0, 0].tolist() == pytest.approx([-2.5, 0.123])


def test_lead_deviations_are_about_each_records_mean() -> None:
    signal = waves(5)
    offset = signal + np.array([0, 1000, -1000, 500, 300], np.int16)[:, None, None]
    expected = np.sqrt((signal.astype(float).std(-1) ** 2).mean(0)) / 1000
    np.testing.assert_allclose(lead_deviations(offset), expected, rtol=1e-5)


def test_training_reduces_the_error(tmp_path: Path) -> None:
    recipe = replace(RECIPE, loop=replace(RECIPE.loop, steps=60, evaluate_every=20), batch=4)
    codec, log = train_codec(recipe, waves(12), waves(3, seed=1), tmp_path)
    assert [line["step"] for line in log] == [20, 40, 60]
    assert log[-1]["valid_loss"] < 0.8 * log[0]["valid_loss"]
    assert not codec.training
    torch.testing.assert_close(codec.lead_scale, lead_deviations(waves(12)))
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == log
    again, _ = train_codec(recipe, waves(12), waves(3, seed=1), tmp_path)  # killed before the codec was written
    for name, value in weights(codec).items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize("call", [1, 6, 9])  # before the first step; in a validation; in a later step
def test_interrupted_training_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    train, valid = waves(6), waves(2, seed=1)
    whole, log = train_codec(RECIPE, train, valid, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, call)
        with pytest.raises(KeyboardInterrupt):
            train_codec(RECIPE, train, valid, tmp_path / "parts")
    assert (tmp_path / "parts" / "state.pt").exists()
    torch.manual_seed(123)  # whatever else the process draws must not matter
    parts, again = train_codec(RECIPE, train, valid, tmp_path / "parts")
    for name, value in weights(whole).items():
        assert torch.equal(value, parts.state_dict()[name]), name
    assert again[-1]["valid_loss"] == log[-1]["valid_loss"]


def test_an_unfinished_run_is_continued_only_with_its_own_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train_codec(RECIPE, waves(6), waves(2, seed=1), tmp_path)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_codec(replace(RECIPE, batch=3), waves(6), waves(2, seed=1), tmp_path)
    with pytest.raises(CheckpointError, match="other settings or data"):
        train_codec(RECIPE, waves(6, seed=9), waves(2, seed=1), tmp_path)


def test_early_stop_keeps_the_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation is made to get worse after the second look: two more looks, then the weights of the second."""
    recipe = replace(RECIPE, loop=replace(RECIPE.loop, steps=40, patience=2))
    told = iter([3.0, 1.0, 2.0, 2.0])
    seen: list[dict[str, torch.Tensor]] = []

    def figures(codec: Codec, waveforms: Waveforms, **options: object) -> Mapping[str, float]:
        seen.append(weights(codec))
        return {"loss": next(told)}

    monkeypatch.setattr(tokenizer, "reconstruction_figures", figures)
    codec, log = train_codec(recipe, waves(6), waves(2, seed=1), tmp_path)
    assert [line["step"] for line in log] == [2, 4, 6, 8]
    for name, value in codec.state_dict().items():
        assert torch.equal(value, seen[1][name]), name
    assert not torch.equal(seen[1]["encoder.to_latent.weight"], seen[3]["encoder.to_latent.weight"])


def test_figures_agree_with_plain_formulas() -> None:
    torch.manual_seed(3)
    codec, valid = Codec(CodecConfig(decoder_width=8)).eval(), waves(5)
    figures = reconstruction_figures(codec, valid, batch=2)
    signal = torch.from_numpy(valid.astype(np.float32) / 1000)
    decoded = codec.decode(codec.encode(signal), signal.shape[-1])
    error = (decoded - signal).numpy()
    rmse = np.sqrt((error**2).mean(-1))
    correlation = [
        np.corrcoef(decoded[i, j], signal[i, j])[0, 1] for i in range(len(signal)) for j in range(signal.shape[1])
    ]
    counts = np.bincount(codec.encode(signal).flatten())
    share = counts[counts > 0] / counts.sum()
    assert figures["rmse_mv"] == pytest.approx(float(torch.from_numpy(rmse).median()), rel=1e-4)
    assert figures["correlation"] == pytest.approx(float(np.mean(correlation)), rel=1e-3, abs=1e-4)
    assert figures["codes_used"] == (counts > 0).sum()
    assert figures["perplexity"] == pytest.approx(float(np.prod(share**-share)), rel=1e-5)


def test_the_autoencoder_learns_without_codes(tmp_path: Path) -> None:
    config = ContinuousConfig(RECIPE.codec, width=5)
    loop = replace(RECIPE.loop, steps=30)
    front, log = train_continuous(config, loop, waves(6), waves(2, seed=1), tmp_path, batch=2, crop=160)
    assert log[-1]["valid_loss"] < 0.9 * log[0]["valid_loss"]
    assert "valid_codes_used" not in log[-1]
    values = front.encode(millivolts(waves(2), np.arange(2), np.zeros(2, np.int64), 640))
    assert values.shape == (2, 40, 5)
    assert values.dtype == torch.float32

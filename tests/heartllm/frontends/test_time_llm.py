"""Time-LLM: patches, prototypes, and the text prefix."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from heartllm.data.synthetic.simulation import simulate
from heartllm.ecg.recording import LEADS
from heartllm.ecg.resampling import resample
from heartllm.errors import DataError
from heartllm.frontends.time_llm import Reprogramming, TimeLLM, TimeLLMConfig, statistics_text, top_lags


def ecgs(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.stack([simulate(3, index)[0].signal for index in range(count)]))


def patches_of(values: torch.Tensor) -> torch.Tensor:
    return values[..., :-24].unflatten(-1, (12, 16))


def test_patches_are_the_papers_and_as_many_as_codes() -> None:
    front_end = TimeLLM(TimeLLMConfig())
    values = front_end.encode(ecgs())
    assert values.shape == (2, 313, 12 * 16 + 24)
    assert (front_end.positions, front_end.width, front_end.codes) == (313, 216, None)
    patches = patches_of(values)
    torch.testing.assert_close(patches[:, :-1, :, 8:], patches[:, 1:, :, :8])  # stride 8 of 16


def test_patches_cut_the_normalised_signal() -> None:
    config = TimeLLMConfig(rate=500.0, stride=16, overlap=1)
    signal = ecgs()
    values = patches_of(TimeLLM(config).encode(signal))
    expected = (signal - signal.mean(-1, keepdim=True)) / signal.std(-1, keepdim=True, correction=0)
    joined = values.transpose(1, 2).flatten(2)
    torch.testing.assert_close(joined[..., :5000], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(joined[..., 5000:], joined[..., 4999:5000].expand(-1, -1, 8))  # the end repeated


def test_instance_normalisation_erases_gain_and_fixed_keeps_it() -> None:
    signal = ecgs(1)
    instance, fixed = TimeLLM(TimeLLMConfig()), TimeLLM(TimeLLMConfig(normalise="fixed"))
    twice, once = (patches_of(instance.encode(x)) for x in (2 * signal, signal))
    torch.testing.assert_close(twice, once, atol=2e-3, rtol=1e-3)
    twice, once = (patches_of(fixed.encode(x)) for x in (2 * signal, signal))
    torch.testing.assert_close(twice, 2 * once, atol=1e-4, rtol=1e-4)


def test_a_flat_lead_gives_zeros_and_nan_is_refused() -> None:
    signal = ecgs(1)
    signal[:, 3] = 0.25
    values = patches_of(TimeLLM(TimeLLMConfig()).encode(signal))
    assert values[:, :, 3].abs().max() == 0
    signal[0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        TimeLLM(TimeLLMConfig()).encode(signal)


def test_reprogramming_is_attention_over_prototypes_written_out() -> None:
    config = TimeLLMConfig(heads=2, head_width=4, prototypes=7, rows=30, embedding=6, dropout=0.0)
    torch.manual_seed(0)
    module = Reprogramming(config, 10).eval()
    values, rows = torch.randn(2, 5, 216), torch.randn(20, 10)
    prototypes = F.layer_norm(module.mixture.weight[:, :20] @ rows + module.mixture.bias[:, None], (10,))
    out = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        q = module.query(module.patch(values[..., :192]))[..., part]
        k, v = module.key(prototypes)[:, part], module.value(prototypes)[:, part]
        out.append(torch.softmax(q @ k.T / math.sqrt(4), -1) @ v)
    expected = module.out(torch.cat(out, -1)) * rows.square().mean().sqrt()
    torch.testing.assert_close(module(values, rows), expected, atol=1e-5, rtol=1e-4)


def test_positions_do_not_see_each_other_and_the_table_gets_no_gradient() -> None:
    torch.manual_seed(0)
    module = TimeLLM(TimeLLMConfig(prototypes=9)).soft_input(16).eval()
    values, rows = torch.randn(1, 6, 216), torch.randn(40, 16, requires_grad=True)
    torch.testing.assert_close(module(values, rows)[:, 2:], module(values[:, 2:], rows))
    module(values, rows).sum().backward()
    assert rows.grad is None
    assert module.mixture.weight.grad is not None


def test_a_large_vocabulary_is_thinned_not_multiplied() -> None:
    module = Reprogramming(TimeLLMConfig(prototypes=4, rows=100), 8)
    assert module.mixture.weight.numel() == 400
    rows = torch.randn(128_000, 8)
    even = torch.linspace(0, 127_999, 100).round().long()
    torch.testing.assert_close(module.prototypes(rows), module.prototypes(rows[even]))


def test_lags_are_the_period() -> None:
    time = np.arange(5000) / 500
    lags = top_lags(np.tile(np.exp(-(((time + 0.4) % 0.8 - 0.4) ** 2) / 2e-4), (12, 1)), 3, 500.0)
    assert lags == pytest.approx([0.8, 1.6, 2.4], abs=0.002)
    assert top_lags(np.zeros((12, 5000)), 3, 500.0) == []


def test_the_prefix_tells_what_normalising_took_away() -> None:
    signal = np.zeros((12, 2500))
    signal[LEADS.index("V1"), 100], signal[0, 50] = -1.26, 0.84
    text = statistics_text(signal, TimeLLMConfig())
    assert "I 0.0 to 0.8, median 0.0" in text
    assert "V1 -1.3 to 0.0" in text
    assert "-0.0" not in text
    assert statistics_text(signal, TimeLLMConfig(statistics="record")).startswith("Input in mV: all leads -1.3 to 0.8")
    rising = np.tile(np.linspace(0, 1, 2500), (12, 1))
    assert "upward" in statistics_text(rising, TimeLLMConfig())
    assert "downward" in statistics_text(-rising, TimeLLMConfig())


@pytest.mark.parametrize("normalise", ["instance", "fixed"])
def test_the_prefix_follows_from_what_is_stored(normalise: Any) -> None:
    config = TimeLLMConfig(normalise=normalise)
    front_end, signal = TimeLLM(config), ecgs(1)
    stored = front_end.encode(signal)[0].numpy().astype(np.float16)
    text = front_end.describe(stored)
    slow = resample(signal[0].double().numpy(), 500, 250)
    expected = statistics_text(slow, config)
    assert text.split(". Trend")[0].count(";") == 11
    told, wanted = ([float(n) for n in re.findall(r"-?[0-9]+[.][0-9]", t)] for t in (text, expected))
    np.testing.assert_allclose(told, wanted, atol=0.11)  # the last written digit, after 16 bits
    assert front_end.describe(stored[100:])  # a later start, as training draws
    assert "0.0 to 0.0" in front_end.describe(front_end.blank(1)[0])
    assert TimeLLM(TimeLLMConfig(statistics="none")).describe(stored) == ""


def test_the_prefix_stands_in_the_prompt_before_the_ecg() -> None:
    from heartllm.language.prompts import prefix_ids, prompt_text, soft_values
    from heartllm.language.vocabulary import PLACEHOLDERS, Vocabulary, train_text_tokenizer

    front_end = TimeLLM(TimeLLMConfig())
    tokenizer = train_text_tokenizer(["Age: 54 years. Input in mV: I -0.4 to 0.7, median 0.0;"] * 3, 300)
    vocabulary = Vocabulary(tokenizer, len(tokenizer), PLACEHOLDERS, front_end.width, front_end.describe)
    values = front_end.encode(ecgs(2)).numpy().astype(np.float16)
    ids, (first, last) = prefix_ids(vocabulary, "Age: 54 years.", values[0])
    assert ids[first - 1] == vocabulary.start
    assert (ids[first:last] == vocabulary.first_code).all()
    assert last - first == 313
    assert vocabulary.decode(ids[: first - 1].tolist()) == f"Age: 54 years.\n{front_end.describe(values[0])}"
    both = prefix_ids(vocabulary, "", values)[0]
    held = soft_values(values)
    assert held is not None
    assert (both == vocabulary.first_code).sum() == 626 == len(held)
    text = prompt_text("Age: 54 years.", values[0], "Why?", describe=front_end.describe)
    assert text.startswith(f"Age: 54 years.\n{front_end.describe(values[0])}\n<|start_ecg|>")


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"rate": 501.0}, {"dropout": 1.0}, {"lags": -1}, {"prototypes": 0}])
def test_impossible_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        TimeLLMConfig(**wrong)  # type: ignore[arg-type]

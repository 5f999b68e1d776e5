"""Compiled decoder layers: the same losses, and a model that is left as it was."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from heartllm.errors import UsageError  # noqa: E402
from heartllm.language.model import ECGLanguageModel  # noqa: E402
from heartllm.training.compiling import compiled_layers  # noqa: E402


@pytest.fixture
def small_model(make_model: Callable[..., Any]) -> ECGLanguageModel:
    model: ECGLanguageModel = make_model()
    return model


def states(model: ECGLanguageModel, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(0, model.vocabulary.base, (2, length), generator=generator)
    positions = torch.arange(length).expand(2, length)
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(2, 1, length, length)
    hidden: torch.Tensor = model.hidden_states(ids, positions, mask)
    return hidden


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_layers_give_the_same_states_and_gradients(small_model: ECGLanguageModel) -> None:
    found = {}
    for compiling in (False, True):
        small_model.zero_grad()
        if compiling:
            with compiled_layers(small_model, None):
                outputs = [states(small_model, length) for length in (24, 31)]
                sum(output.square().mean() for output in outputs).backward()
        else:
            outputs = [states(small_model, length) for length in (24, 31)]
            sum(output.square().mean() for output in outputs).backward()
        weight = small_model.body.layers[0].self_attn.q_proj.weight
        found[compiling] = [*(output.detach() for output in outputs), weight.grad.clone()]
    for plain, fast in zip(found[False], found[True], strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)


def test_nothing_of_it_stays(small_model: ECGLanguageModel) -> None:
    before = small_model.body.config._attn_implementation
    try:
        with compiled_layers(small_model, None):
            assert all(layer._compiled_call_impl is not None for layer in small_model.body.layers)
    except UsageError:
        pytest.skip("needs a C++ compiler")
    assert all(layer._compiled_call_impl is None for layer in small_model.body.layers)
    assert small_model.body.config._attn_implementation == before


def test_a_missing_compiler_is_named(small_model: ECGLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with (
        pytest.raises(UsageError, match=r"needs a C\+\+ compiler.*compile = false"),
        compiled_layers(small_model, None),
    ):
        pass


def test_layers_that_are_cut_are_refused(small_model: ECGLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="FSDP cuts are not compiled"), compiled_layers(small_model, None):
        pass

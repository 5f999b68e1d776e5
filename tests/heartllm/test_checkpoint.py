"""Checkpoints: what is saved comes back, and whatever was altered, lost or put there is noticed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.checkpoint import (
    CheckpointConfig,
    load_codec,
    load_frontend,
    load_language,
    new_language,
    save_frontend,
    save_language,
    verify,
    write_manifest,
)
from heartllm.codec.codec import Codec, CodecConfig
from heartllm.errors import CheckpointError, UsageError
from heartllm.frontends.continuous import Continuous, ContinuousConfig
from heartllm.language.generation import ResponderItem
from heartllm.language.packing import collate, pack
from heartllm.language.prompts import prefix_ids
from heartllm.responder import Responder

CODEC = CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)


def write(folder: Path, tokenizer: Any, language: Any, **changes: Any) -> tuple[Any, Codec]:
    torch.manual_seed(0)
    config = CheckpointConfig(CODEC, language, len(tokenizer), data=("a:1", "b:2"), stage="tuning", **changes)
    model, codec = new_language(config, tokenizer).eval(), Codec(CODEC).eval()
    save_frontend(codec, folder)
    save_language(folder, model, config, {"forecasting": [{"step": 1}], "tuning": [{"step": 2, "loss": 0.5}]})
    write_manifest(folder)
    return model, codec


@pytest.fixture
def folder(tokenizer: Any, tiny_config: Any, tmp_path: Path) -> Path:
    write(tmp_path / "checkpoint", tokenizer, tiny_config)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("train", ["all", "lora", "lora+norms"])
@pytest.mark.parametrize("rows", ["digits", "opaque"])
def test_round_trip(tokenizer: Any, tiny_config: Any, tmp_path: Path, train: Any, rows: Any) -> None:
    model, codec = write(tmp_path, tokenizer, replace(tiny_config, train=train, rows=rows), blind=False)
    verify(tmp_path)
    again, config = load_language(tmp_path)
    assert config.data == ("a:1", "b:2")
    assert config.language == replace(tiny_config, train=train, rows=rows)
    prefix, span = prefix_ids(model.vocabulary, "Age: 54 years.", np.arange(30))
    batch = collate([pack(prefix, [], span)], model.vocabulary.pad)
    with torch.no_grad():
        a, b = (m.hidden_states(batch.ids, batch.positions, batch.mask) @ m.output_table().T for m in (model, again))
    assert torch.equal(a, b)
    reread, digest = load_codec(tmp_path)
    signal = torch.randn(1, 12, 5000)
    assert torch.equal(reread.encode(signal), codec.encode(signal))
    assert digest == hashlib.sha256((tmp_path / "codec.safetensors").read_bytes()).hexdigest()
    logs = sorted(path.name for path in (tmp_path / "training").iterdir())
    assert logs == ["forecasting.jsonl", "tuning.jsonl"]


@pytest.mark.parametrize("train", ["all", "lora"])
def test_round_trip_of_soft_tokens(tokenizer: Any, tiny_config: Any, tmp_path: Path, train: Any) -> None:
    torch.manual_seed(0)
    front = Continuous(ContinuousConfig(CODEC, width=5)).eval()
    front.centre.add_(0.5)
    config = CheckpointConfig(None, replace(tiny_config, train=train), len(tokenizer), frontend="continuous")
    model = new_language(config, tokenizer, front=front).eval()
    save_frontend(front, tmp_path)
    save_language(tmp_path, model, config, {})
    write_manifest(tmp_path)
    responder = Responder.load(tmp_path)
    assert responder.config == config
    assert isinstance(responder.front, Continuous)
    assert responder.front.config == front.config
    assert not (tmp_path / "codec.toml").exists()
    signal = torch.randn(1, 12, 5000)
    assert torch.equal(responder.front.encode(signal), front.encode(signal))
    assert model.soft is not None
    again = responder.generator.model.soft
    assert again is not None
    for name, value in model.soft.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    _, before = load_frontend(tmp_path)
    (tmp_path / "frontend.toml").write_text(
        (tmp_path / "frontend.toml").read_text().replace("clip = 5.0", "clip = 4.0")
    )
    assert load_frontend(tmp_path)[1] != before  # settings that no weight shows are part of the key of stores
    with pytest.raises(CheckpointError, match="'continuous', not the codec"):
        load_codec(tmp_path)
    with pytest.raises(CheckpointError, match="'continuous', not the codec"):
        _ = responder.codec


def test_the_hash_names_the_content(folder: Path, tokenizer: Any, tiny_config: Any, tmp_path: Path) -> None:
    write(tmp_path / "same", tokenizer, tiny_config)
    write(tmp_path / "other", tokenizer, tiny_config, blind=True)
    assert verify(folder) == verify(tmp_path / "same") != verify(tmp_path / "other")


def test_an_altered_byte_in_any_file_is_named(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert len(files) >= 7
    for path in files:
        original = path.read_bytes()
        for place in (0, len(original) // 2, len(original) - 1):
            altered = bytearray(original)
            altered[place] ^= 1
            path.write_bytes(bytes(altered))
            with pytest.raises(CheckpointError, match="does not have the hash") as caught:
                verify(folder)
            assert str(path) in str(caught.value)
        path.unlink()
        with pytest.raises(CheckpointError, match="is missing") as caught:
            verify(folder)
        assert str(path) in str(caught.value)
        path.write_bytes(original)
    verify(folder)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"files": 3}', '{"files": ["a"]}', "null"])
def test_a_folder_without_a_whole_manifest_is_no_checkpoint(folder: Path, text: str | None) -> None:
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        verify(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "text/../../secret"])
def test_a_manifest_that_leads_outside_is_refused(folder: Path, name: str) -> None:
    secret = folder.parent / "secret"
    secret.write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(b"x").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside the folder"):
        verify(folder)


@pytest.mark.parametrize("name", ["language.safetensors", "text"])
def test_a_link_that_leads_outside_is_refused(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(CheckpointError, match="outside the folder"):
        verify(folder)


@pytest.mark.parametrize("name", ["text/added_tokens.json", "extra.safetensors", "more.toml"])
def test_a_file_that_the_manifest_does_not_name_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("{}")
    with pytest.raises(CheckpointError, match="not named in manifest"):
        verify(folder)


def test_notes_and_results_may_be_put_beside(folder: Path) -> None:
    before = verify(folder)
    (folder / "README.md").write_text("# A card")
    (folder / "run.json").write_text("{}")
    (folder / "blind").mkdir()
    (folder / "blind" / "checkpoint.toml").write_text("")
    assert verify(folder) == before


def test_weights_that_do_not_fit_are_refused(folder: Path, tokenizer: Any, tiny_config: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "language.safetensors"
    weights = load_file(path)
    for change, name in (
        ({key: value for key, value in weights.items() if key != "rows.level"}, "rows.level"),
        ({**weights, "surplus": torch.zeros(1)}, "surplus"),
        ({**weights, "rows.level": torch.zeros(3, 32)}, "rows.level"),
    ):
        save_file(change, path)
        with pytest.raises(CheckpointError, match=name):
            load_language(folder)
    path.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_language(folder)


def test_a_vocabulary_that_does_not_fit_is_refused(folder: Path) -> None:
    path = folder / "checkpoint.toml"
    text = path.read_text()
    rows = next(line for line in text.splitlines() if line.startswith("text_rows"))
    path.write_text(text.replace(rows, "text_rows = 300"))
    with pytest.raises(CheckpointError, match="300 text rows"):
        load_language(folder)
    path.write_text(text.replace(rows, "text_rows = 330"))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_language(folder)
    path.write_text(text.replace("text_rows", "text_row"))
    with pytest.raises(UsageError, match="Did you mean 'text_rows'"):
        load_language(folder)


def test_a_codec_of_another_model_is_refused(folder: Path) -> None:
    save_frontend(Codec(CodecConfig(levels=(3, 3, 2), decoder_width=16)), folder)
    write_manifest(folder)
    with pytest.raises(CheckpointError, match="levels"):
        Responder.load(folder)


def test_a_codec_alone_holds_no_language_model(tmp_path: Path) -> None:
    save_frontend(Codec(CODEC), tmp_path)
    write_manifest(tmp_path)
    verify(tmp_path)
    with pytest.raises(CheckpointError, match="holds no language model"):
        load_language(tmp_path)


def test_nothing_but_toml_json_and_safetensors_is_written(folder: Path) -> None:
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {
        ".toml",
        ".json",
        ".jsonl",
        ".safetensors",
        ".jinja",
    }


def test_a_loaded_responder_answers(folder: Path) -> None:
    responder = Responder.load(folder)
    items = [ResponderItem("r", np.arange(30), question) for question in ("Is it?", None)]
    assert len(list(responder.answer(items, max_new_tokens=4))) == 2


def test_checkpoints_from_before_front_ends_had_a_name_load_as_they_were(folder: Path) -> None:
    path = folder / "checkpoint.toml"
    items = [ResponderItem("r", np.arange(30), question) for question in ("Is it?", None)]
    before = list(Responder.load(folder).answer(items, max_new_tokens=8))
    older = [line for line in path.read_text().splitlines() if not line.startswith("frontend")]
    assert len(older) < len(path.read_text().splitlines())
    path.write_text("\n".join(older))
    write_manifest(folder)
    responder = Responder.load(folder)
    assert (responder.config.frontend, responder.codec.config) == ("fsq", CODEC)
    assert list(responder.answer(items, max_new_tokens=8)) == before


def test_the_reference_checkpoint_loads(repository: Path) -> None:
    reference = repository / "reports" / "reference" / "checkpoint"
    if not reference.is_dir():
        pytest.skip("no reference checkpoint beside these tests")
    for place in (reference, reference / "blind"):
        responder = Responder.load(place)
        assert responder.front.kind == "fsq"
        assert responder.generator.model.soft is None
        item = ResponderItem("r", responder.front.blank(1)[0], "Does this ECG show sinus rhythm?")
        assert len(list(responder.answer([item], max_new_tokens=4))) == 1

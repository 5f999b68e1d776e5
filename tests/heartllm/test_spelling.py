"""`heartllm codes`: what it prints, an exported folder's tokenizer reads as the model's own prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from heartllm.checkpoint import save_frontend, write_manifest
from heartllm.cli import app
from heartllm.codec.codec import Codec, CodecConfig
from heartllm.ecg import read_recording
from heartllm.ecg.recording import LEADS
from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm.export import export
from heartllm.frontends.continuous import Continuous, ContinuousConfig
from heartllm.frontends.ecg_byte import ECGByte, ECGByteConfig
from heartllm.language.prompts import prefix_ids, prompt_ids
from heartllm.responder import Responder

QUESTION, FEATURES = "Does this ECG show symptoms of sinus bradycardia?", "Age: 54 years. Sex: male."
Write = Callable[..., Path]


def codes(*words: object) -> tuple[str, str]:
    """What the command prints, without the last line's end, and its notes."""
    result = CliRunner().invoke(app, ["codes", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("\n")
    return result.stdout[:-1], result.stderr


@pytest.fixture
def record(tmp_path: Path) -> Path:
    signal = np.random.default_rng(3).normal(size=(12, 5000)).astype(np.float32)
    np.save(tmp_path / "ecg.npy", signal)
    facts = {"leads": list(LEADS), "sampling_rate": 500, "units": "mV"}
    (tmp_path / "ecg.json").write_text(json.dumps(facts), encoding="utf-8")
    return tmp_path / "ecg.npy"


@pytest.mark.parametrize("layout", ["ecg-first", "question-first"])
def test_what_is_printed_is_read_as_the_models_own_prompt(
    tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write, record: Path, layout: Any
) -> None:
    from transformers import AutoTokenizer

    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer), layout=layout)
    export(checkpoint, tmp_path / "exported")
    exported = AutoTokenizer.from_pretrained(tmp_path / "exported")
    responder = Responder.load(checkpoint)
    found = responder.encode(read_recording(record))
    vocabulary = responder.generator.vocabulary
    assert len(np.unique(found)) >= 4

    def own(features: str, question: str | None) -> Sequence[int]:
        inside = question if layout == "question-first" else None
        prefix, _ = prefix_ids(vocabulary, features, found, inside)
        return [*prefix.tolist(), *prompt_ids(vocabulary, question, layout).tolist()]

    asked = (record, "--checkpoint", checkpoint)
    for features in ("", FEATURES):
        more = ("--features", features) if features else ()
        text, notes = codes(*asked, "--prompt", QUESTION, *more)
        assert notes == ""
        assert exported(text)["input_ids"] == own(features, QUESTION)
        assert exported(codes(*asked, "--prompt", "report", *more)[0])["input_ids"] == own(features, None)
    spelt = codes(*asked)[0]
    assert spelt.startswith("<|start_ecg|><ecg_00")
    assert exported(spelt)["input_ids"] == [*vocabulary.bos, *vocabulary.ecg(found).tolist()]
    assert spelt in codes(*asked, "--prompt", QUESTION)[0]
    assert [int(word) for word in codes(*asked, "--ids")[0].split(" ")] == found.tolist()


def test_a_codec_alone_spells_and_does_not_ask(tmp_path: Path, record: Path) -> None:
    save_frontend(Codec(CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)), tmp_path / "codec")
    write_manifest(tmp_path / "codec")
    assert codes(record, "--codec", tmp_path / "codec")[0].count("<ecg_") == 313
    with pytest.raises(CheckpointError, match=r"codec: holds no language model.*heartllm tune"):
        codes(record, "--codec", tmp_path / "codec", "--prompt", QUESTION)


def test_short_ecgs_are_spelt_without_filling(tmp_path: Path, record: Path) -> None:
    front = ECGByte(ECGByteConfig(merges=0, rate=10.0, leads=("I",), strip="", positions=40))  # 25 letters
    save_frontend(front, tmp_path / "byte")
    write_manifest(tmp_path / "byte")
    assert codes(record, "--codec", tmp_path / "byte")[0].count("<ecg_") == 25
    assert len(codes(record, "--codec", tmp_path / "byte", "--ids")[0].split()) == 25


def test_soft_tokens_have_no_spelling(tmp_path: Path, record: Path) -> None:
    save_frontend(Continuous(ContinuousConfig(CodecConfig(decoder_width=8), width=5)), tmp_path / "front")
    write_manifest(tmp_path / "front")
    with pytest.raises(CheckpointError, match=r"front: the front-end 'continuous' gives soft tokens.*heartllm ask"):
        codes(record, "--codec", tmp_path / "front")


def test_a_prompt_holds_what_the_checkpoint_was_trained_on(
    tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write, record: Path
) -> None:
    blind = write_checkpoint(tmp_path / "b", tokenizer, tiny_config, len(tokenizer), blind=True)
    text, notes = codes(record, "-c", blind, "--prompt", QUESTION, "--features", FEATURES)
    assert text == f"{FEATURES}\nQuestion: {QUESTION} Answer:"
    assert "trained without ECGs" in notes
    plain = write_checkpoint(tmp_path / "p", tokenizer, tiny_config, len(tokenizer), features=False)
    text, notes = codes(record, "-c", plain, "--prompt", QUESTION, "--features", FEATURES)
    assert text.startswith("<|start_ecg|>")
    assert "trained without patient features" in notes


def test_a_checkpoint_whose_parts_do_not_fit(
    tokenizer: Any, tiny_config: Any, tmp_path: Path, write_checkpoint: Write, record: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / "c", tokenizer, tiny_config, len(tokenizer))
    torch.manual_seed(0)
    save_frontend(Codec(replace(CodecConfig(decoder_width=16), levels=(5, 5))), checkpoint)
    write_manifest(checkpoint)
    with pytest.raises(CheckpointError, match=r"but checkpoint\.toml says"):
        codes(record, "-c", checkpoint)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--features", FEATURES), "--features: goes into a prompt only"),
        (("--prompt", QUESTION, "--ids"), "--prompt: cannot be given together with --ids"),
        (("--prompt", " "), "--prompt: the question is empty"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, record: Path, words: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        codes(record, "-c", tmp_path / "nowhere", *words)


def test_what_is_not_there(tmp_path: Path, record: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: is not a checkpoint"):
        codes(record, "-c", tmp_path / "nowhere")
    save_frontend(Codec(CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)), tmp_path / "codec")
    write_manifest(tmp_path / "codec")
    with pytest.raises(DataError, match="nothing-here"):
        codes(tmp_path / "nothing-here", "-c", tmp_path / "codec")

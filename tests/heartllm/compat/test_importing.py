"""`heartllm import`: folders of ours from the authors' files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from heartllm.checkpoint import load_codec, verify
from heartllm.cli import app
from heartllm.compat.codec import read_codec
from heartllm.compat.importing import ImportRecord
from heartllm.compat.language import read_language
from heartllm.compat.model import AuthorsModel
from heartllm.compat.prompts import load_prompts
from heartllm.config import load
from heartllm.errors import HeartLLMError
from heartllm.language.generation import ResponderItem
from heartllm.language.vocabulary import END, START, code_token


def command(*words: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, words)])


def test_a_codec_of_ours(best: Path, tmp_path: Path, make_recording: Callable[..., Any]) -> None:
    found = command("--authors-codec", best, "-o", tmp_path / "codec")
    assert found.exit_code == 0, found.output
    assert len(verify(tmp_path / "codec")) == 64
    codec, _ = load_codec(tmp_path / "codec")
    signal = torch.from_numpy(make_recording().signal)[None]
    assert torch.equal(codec.encode(signal), read_codec(best, "mimic").codec.encode(signal))
    record = load(ImportRecord, tmp_path / "codec" / "compat.toml")
    assert (record.mode, record.leads, record.step, record.codec_file) == ("compat", "mimic", 1200, "best.pt")
    assert record.codec_sha256 == read_codec(best).hash
    assert command("--authors-codec", best, "--leads", "ptbxl", "-o", tmp_path / "other").exit_code == 0
    codec, _ = load_codec(tmp_path / "other")
    assert torch.equal(codec.encode(signal), read_codec(best).codec.encode(signal))


@pytest.mark.parametrize(("rows", "tied"), [(None, True), (None, False), (400, True)])
def test_a_plain_hugging_face_model(
    best: Path,
    make_backbone: Callable[..., Path],
    make_state: Callable[[Path], dict[str, Any]],
    save: Callable[..., Path],
    tmp_path: Path,
    rows: int | None,
    tied: bool,
) -> None:
    backbone = make_backbone(rows, tied)
    tuned = save(make_state(backbone))
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "both"
    found = command("--authors-codec", best, "--authors-llm", tuned, "--backbone", backbone, "-o", out)
    assert found.exit_code == 0, found.output
    verify(out)
    record = load(ImportRecord, out / "compat.toml")
    assert (record.rank, record.alpha, record.base, len(record.language_sha256)) == (4, 16.0, "file", 64)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out / "llm"), AutoTokenizer.from_pretrained(out / "llm")
    read = read_language(tuned, backbone, read_codec(best))
    vocabulary, codes = read.vocabulary, np.array([3, 0, 1295, 640])
    ids = torch.tensor(tokenizer.convert_tokens_to_ids([START, END, *map(code_token, range(1296))]))
    own = torch.arange(vocabulary.start, vocabulary.first_code + 1296)
    assert torch.equal(ids, own) is (rows is None)  # where the tokenizer leaves rows unused, tokens take these
    for read_rows, written in (
        (read.model.get_input_embeddings(), model.get_input_embeddings()),
        (read.model.get_output_embeddings(), model.get_output_embeddings()),
    ):
        assert torch.equal(written.weight[ids], read_rows.weight[own])
    moved = dict(zip(own.tolist(), ids.tolist(), strict=True))
    authors = AuthorsModel(read_codec(best).codec, read.model, vocabulary, load_prompts())
    for question in ("Does this ECG show symptoms of sinus bradycardia?", None):
        item = ResponderItem("x", codes, question, "Patient Information: - Age: 54;")
        before, after = authors.prompts.parts(item.question, item.features)
        text = before + START + "".join(map(code_token, codes.tolist())) + END + after
        inputs = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        assert inputs["input_ids"][0].tolist() == [moved.get(token, token) for token in authors.ids(item)]
        answer = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
        wanted = next(authors.answer([item]))
        assert wanted.startswith(tokenizer.decode(answer, skip_special_tokens=True).strip())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--authors-codec", "absent.pt"), 2, "no such file"),
        (("--authors-codec", "BEST", "--leads", "mimc"), 2, "unknown value 'mimc'"),
        (("--authors-codec", "BEST", "--base", "files"), 2, "unknown value 'files'"),
        (("--authors-codec", "BEST", "--authors-llm", "x.pth"), 2, "--authors-llm and --backbone together"),
        (("--authors-codec", "BEST", "--backbone", "x"), 2, "--authors-llm and --backbone together"),
        (("--authors-codec", "BEST", "--authors-llm", "BEST", "--backbone", "x"), 1, "is no plain tensor"),
    ],
)
def test_bad_input_leaves_no_folder(
    best: Path, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    found = command(*(best if word == "BEST" else word for word in words), "-o", tmp_path / "out" / "new")
    assert isinstance(found.exception, HeartLLMError)
    assert found.exception.exit_code == code
    assert message in str(found.exception)
    assert not (tmp_path / "out" / "new").exists()
    assert not list(tmp_path.glob("out/.new*"))


def test_a_folder_that_is_there_stays(best: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    found = command("--authors-codec", best, "-o", tmp_path)
    assert "exists already" in str(found.exception)
    assert (tmp_path / "kept").read_text() == "mine"

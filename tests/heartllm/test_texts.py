"""Text and JSON files, whatever they hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heartllm.texts import hash_file, read_json, read_text


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "{", "", "nul", "[1,]"])
def test_json_that_is_none_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError):
        read_json(tmp_path / "x.json")


def test_half_a_character_is_mended(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"\\ud83d": ["a\\udfff", "\\ud83d\\ude00", 1]}')
    assert read_json(tmp_path / "x.json") == {"\ufffd": ["a\ufffd", "😀", 1]}


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Opening one waits for a writer, for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError):
            read_text(path)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "nowhere")


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x").startswith("ba7816bf8f01cfea")

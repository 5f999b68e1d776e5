"""Files that are there whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from heartllm.writing import remove_folder, write_array, write_atomically, write_whole


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_whole(tmp_path / "text", "Größe\r\n")
    write_whole(tmp_path / "bytes", b"\x00\xff")
    write_array(tmp_path / "array", np.arange(3))
    assert (tmp_path / "text").read_bytes() == "Größe\r\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"
    assert np.load(tmp_path / "array").tolist() == [0, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"text", "bytes", "array"}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def fail(part: Path) -> None:
        part.write_text("ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".file.part").write_text("a longer text that was not finished")
    write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert not (tmp_path / ".file.part").exists()


def test_a_folder_is_gone_or_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "state.pt").write_text("1")
    real: Callable[[Path], None] = shutil.rmtree
    with monkeypatch.context() as patch:

        def killed(path: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(folder)
    assert shutil.rmtree is real
    assert not folder.exists()
    remove_folder(folder)
    assert not list(tmp_path.iterdir())
    remove_folder(folder)  # nothing is there

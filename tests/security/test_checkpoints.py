"""Attacks by checkpoints, training folders, token stores and model folders of strangers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heartllm.errors import CheckpointError, HeartLLMError, UsageError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from heartllm.checkpoint import (  # noqa: E402
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
from heartllm.codec.codec import Codec, CodecConfig  # noqa: E402
from heartllm.codec.store import TokenStore  # noqa: E402
from heartllm.compat.codec import read_codec  # noqa: E402
from heartllm.language.backbones import load_backbone  # noqa: E402
from heartllm.language.model import LanguageConfig, TinyConfig  # noqa: E402
from heartllm.language.vocabulary import load_text_tokenizer, train_text_tokenizer  # noqa: E402
from heartllm.responder import Responder  # noqa: E402
from heartllm.training.loop import LoopConfig, fit  # noqa: E402

CODEC = CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole checkpoint of a model that nobody trained."""
    tokenizer = train_text_tokenizer(["Question: Does this ECG show it? Answer: yes"] * 3, 300)
    language = LanguageConfig(tiny=TinyConfig(hidden=32, layers=2, heads=2, feedforward=48, vocabulary=300))
    config = CheckpointConfig(CODEC, language, len(tokenizer), stage="tuning")
    path = tmp_path / "checkpoint"
    save_frontend(Codec(CODEC).eval(), path)
    save_language(path, new_language(config, tokenizer).eval(), config, {})
    write_manifest(path)
    verify(path)
    return path


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    """Changes a text file of a checkpoint, and its manifest with it: the attacker wrote both."""
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text, encoding="utf-8")
    root = next(parent for parent in path.parents if (parent / "manifest.json").exists())
    write_manifest(root)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_as_authors_file(bomb: Any, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "best.pt"
    for content in (bomb, {"model": {"x": bomb}, "step": 1}):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(CheckpointError, match="would have to execute"):
            read_codec(path)


def test_a_zip_bomb_as_authors_file(tmp_path: Path) -> None:
    """What `torch.save` writes is not packed; a member that is may unpack into anything."""
    import zipfile

    torch.save({"model": {"x": torch.zeros(1 << 16)}}, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "best.pt", "w") as bad:
        for part in good.infolist():
            bad.writestr(part.filename, good.read(part), compress_type=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="holds packed data"):
        read_codec(tmp_path / "best.pt")


def test_a_pickle_as_the_state_of_a_training(bomb: Any, tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)

    def train() -> object:
        return fit(
            model, loss=lambda step: {"loss": model(torch.ones(2)).sum()}, config=LoopConfig(steps=2), folder=tmp_path
        )

    for content in (bomb, {"fingerprint": "", "model": {"x": bomb}}):
        torch.save(content, tmp_path / "state.pt")
        with pytest.raises(CheckpointError, match="would have to execute"):
            train()
    for whole in (b"", b"not a state", torch.zeros(3)):
        if isinstance(whole, bytes):
            (tmp_path / "state.pt").write_bytes(whole)
        else:
            torch.save(whole, tmp_path / "state.pt")
        with pytest.raises(CheckpointError, match=r"is damaged|would have to execute|other settings"):
            train()


def test_a_pickle_called_safetensors(bomb: Any, folder: Path) -> None:
    for name in ("language.safetensors", "codec.safetensors"):
        good = (folder / name).read_bytes()
        torch.save(bomb, folder / name)
        write_manifest(folder)
        with pytest.raises(CheckpointError, match="cannot be read"):
            Responder.load(folder)
        (folder / name).write_bytes(good)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "text/../../secret", "..\\secret/../../secret"])
def test_a_manifest_that_names_a_file_outside(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = hashlib.sha256(b"x").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="outside the folder"):
        Responder.load(folder)


@pytest.mark.parametrize("name", ["language.safetensors", "text", "codec.toml"])
def test_a_link_out_of_a_checkpoint(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / "elsewhere")
    (folder / name).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(CheckpointError, match="outside the folder"):
        Responder.load(folder)


def test_a_tokenizer_that_names_code(folder: Path, tmp_path: Path) -> None:
    """`auto_map` and a class of its own in `tokenizer_config.json`, and a module beside it."""
    text = folder / "text"
    config = json.loads((text / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.update(tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": ["evil.EvilTokenizer", "evil.Evil"]})
    (text / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (text / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass EvilTokenizer: ...\n")
    write_manifest(folder)
    assert load_text_tokenizer(text).encode("yes")  # read as what it is, or refused; never as what it names
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["foreign", "llama"])
def test_a_backbone_that_names_code(tmp_path: Path, kind: str) -> None:
    import transformers

    path = tmp_path / "backbone"
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **shape)).save_pretrained(path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config.update(model_type=kind, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    if kind == "foreign":
        with pytest.raises(UsageError, match="cannot be loaded"):
            load_backbone(str(path))
    else:
        assert type(load_backbone(str(path))) is transformers.LlamaForCausalLM
    assert not (tmp_path / "ran").exists()


def test_a_pickle_as_a_backbone(bomb: Any, tmp_path: Path) -> None:
    import transformers

    path = tmp_path / "backbone"
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=64, **shape)).save_pretrained(path)
    (path / "model.safetensors").unlink()
    torch.save({"lm_head.weight": bomb}, path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_backbone(str(path))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("checkpoint.toml", "hidden = 32", "hidden = 3200000"),
        ("checkpoint.toml", "layers = 2", "layers = 2000000000"),
        ("checkpoint.toml", "feedforward = 48", "feedforward = 4800000000"),
        ("checkpoint.toml", "heads = 2", "heads = 2000000000"),
        ("checkpoint.toml", "hidden = 32", "hidden = -32"),
        ("codec.toml", "decoder_width = 16", "decoder_width = 1600000000"),
        ("codec.toml", "decoder_width = 16", "decoder_width = 40000"),
        ("codec.toml", "levels = [3, 3, 2, 2]", "levels = [300000, 3000000, 2000000, 2]"),
    ],
)
def test_a_configuration_of_a_huge_model(
    folder: Path, name: str, old: str, new: str, little_memory: Callable[[], None]
) -> None:
    """A kilobyte of TOML asks for terabytes: refused before anything is allocated."""
    Responder.load(folder)
    rewrite(folder / name, (old, new))
    little_memory()
    with pytest.raises(HeartLLMError, match=r"larger model|does not fit its configuration|toml says"):
        load_language(folder)


def test_a_front_end_of_a_huge_model(tmp_path: Path, little_memory: Callable[[], None]) -> None:
    from heartllm.frontends.continuous import Continuous, ContinuousConfig

    save_frontend(Continuous(ContinuousConfig(CODEC, width=5)).eval(), tmp_path)
    load_frontend(tmp_path)
    text = (tmp_path / "frontend.toml").read_text()
    (tmp_path / "frontend.toml").write_text(text.replace("width = 5", "width = 60000"))
    little_memory()
    with pytest.raises(CheckpointError, match=r"larger model|does not fit"):
        load_frontend(tmp_path)


def test_a_kind_of_front_end_that_names_code(tmp_path: Path) -> None:
    (tmp_path / "frontend.toml").write_text('kind = "os:system"\n["os:system"]\ncommand = "touch ran"\n')
    with pytest.raises(UsageError, match="unknown kind of front-end"):
        load_frontend(tmp_path)
    with pytest.raises(HeartLLMError):
        load_codec(tmp_path)


def store(folder: Path, codes: bytes | None = None) -> Path:
    folder.mkdir()
    np.save(folder / "codes.npy", np.zeros((2, 1, 313), np.uint16))
    if codes is not None:
        (folder / "codes.npy").write_bytes(codes)
    manifest = {"schema": 1, "codec": "c", "dataset": "d", "data": "x", "shape": [2, 1, 313], "keys": ["a", "b"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_token_store_with_a_pickle_a_lie_or_a_link(
    bomb: Any, tmp_path: Path, little_memory: Callable[[], None]
) -> None:
    from io import BytesIO

    TokenStore.open(store(tmp_path / "good"))
    stream = BytesIO()
    np.save(stream, np.array([bomb], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="holds objects"):
        TokenStore.open(store(tmp_path / "pickle", stream.getvalue()))
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<u2", "fortran_order": False, "shape": (10**12, 1, 313)})
    little_memory()
    with pytest.raises(CheckpointError, match="its header says"):
        TokenStore.open(store(tmp_path / "huge", stream.getvalue()))
    linked = store(tmp_path / "linked")
    (linked / "codes.npy").unlink()
    (linked / "codes.npy").symlink_to(tmp_path / "good" / "codes.npy")
    with pytest.raises(CheckpointError, match="outside the folder"):
        TokenStore.open(linked)


def test_a_shard_that_is_a_link(tmp_path: Path) -> None:
    from heartllm.frontends.shards import PLAN, whole_shards

    part = tmp_path / "unfinished" / "shard-1-of-1"
    part.mkdir(parents=True)
    (part / PLAN).write_text(json.dumps({"codec": "c", "shard": "1/1"}))
    like = np.zeros((0, 1, 12), np.uint16)
    np.save(tmp_path / "elsewhere.npy", np.zeros((1, 1, 12), np.uint16))
    (part / "000000.npy").symlink_to(tmp_path / "elsewhere.npy")
    (part / "000000.json").write_text('["a"]')
    with pytest.raises(CheckpointError, match="outside the folder"):
        whole_shards(tmp_path / "unfinished", {"codec": "c"}, [["a"]], like)
    (part / "000000.npy").unlink()
    (tmp_path / "elsewhere.npy").rename(part / "000000.npy")
    assert whole_shards(tmp_path / "unfinished", {"codec": "c"}, [["a"]], like) == [part / "000000"]


def test_a_recipe_cannot_leave_toml(tmp_path: Path) -> None:
    """`base` names a file: one that is no TOML is refused, whatever it holds."""
    from heartllm.recipe import load_recipe

    (tmp_path / "evil.py").write_text("import os; os.system('touch ran')")
    (tmp_path / "mine.toml").write_text('base = "evil.py"\n')
    with pytest.raises(UsageError, match="not valid TOML"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_replaced_configuration_is_noticed(folder: Path) -> None:
    """Without a new manifest any change is seen, before a file is parsed."""
    (folder / "checkpoint.toml").write_text(dumps_blind(folder))
    with pytest.raises(CheckpointError, match="does not have the hash"):
        Responder.load(folder)


def dumps_blind(folder: Path) -> str:
    from heartllm.config import dumps, load

    return dumps(replace(load(CheckpointConfig, folder / "checkpoint.toml"), blind=True))


@pytest.mark.parametrize("keys", ["3", '["a", "a"]', '[["a"], "b"]', '{"a": 1, "b": 2}'])
def test_a_token_store_of_odd_keys(tmp_path: Path, keys: str) -> None:
    path = store(tmp_path / "s")
    text = (path / "manifest.json").read_text().replace('["a", "b"]', keys)
    for content in (text, "[" * 100_000, text.replace('"schema"', '"holds": ["codes"], "schema"')):
        (path / "manifest.json").write_text(content)
        with pytest.raises(CheckpointError):
            TokenStore.open(path)


def test_manifests_and_front_ends_that_are_links_or_pipes(folder: Path, tmp_path: Path) -> None:
    import os

    (folder / "codec.toml").rename(tmp_path / "codec.toml")
    (folder / "codec.toml").symlink_to(tmp_path / "codec.toml")
    with pytest.raises(CheckpointError, match="outside the folder"):
        load_frontend(folder)
    linked = store(tmp_path / "s")
    (linked / "manifest.json").rename(tmp_path / "m.json")
    for make in (
        lambda: os.mkfifo(linked / "manifest.json"),
        lambda: (linked / "manifest.json").symlink_to("../m.json"),
    ):
        make()
        with pytest.raises(CheckpointError):
            TokenStore.open(linked)
        (linked / "manifest.json").unlink()
    (linked / "codes.npy").unlink()
    (linked / "codes.npy").symlink_to("codes.npy")  # a circle
    (tmp_path / "m.json").rename(linked / "manifest.json")
    with pytest.raises(CheckpointError, match="cannot be followed"):
        TokenStore.open(linked)


@pytest.mark.parametrize(
    "change", [("decoder_width = 16", "decoder_width = 2"), ("levels = [3", "levels = [" + "9" * 30)]
)
def test_sizes_in_inner_tables_of_a_front_end(tmp_path: Path, change: tuple[str, str]) -> None:
    from heartllm.frontends.continuous import Continuous, ContinuousConfig

    save_frontend(Continuous(ContinuousConfig(CODEC, width=5)).eval(), tmp_path)
    rewritten = (tmp_path / "frontend.toml").read_text().replace(*change)
    (tmp_path / "frontend.toml").write_text(rewritten)
    with pytest.raises(HeartLLMError, match=r"frontend\.(toml|safetensors)"):
        load_frontend(tmp_path)


def test_heads_that_do_not_divide_the_model(folder: Path) -> None:
    rewrite(folder / "checkpoint.toml", ("heads = 2", "heads = 3"))
    with pytest.raises(UsageError, match=r"checkpoint: language\.tiny: .*3 heads"):
        load_language(folder)


@pytest.mark.parametrize("kind", ["wide", "claims", "meta", "parameter"])
def test_authors_tensors_that_claim_more_than_they_bring(
    tmp_path: Path, kind: str, little_memory: Callable[[], None]
) -> None:
    """The decoder's width is read from one tensor: its claim is held against all others before a decoder is built."""
    tensors = {
        "wide": torch.zeros(80_000, 4),
        "claims": torch.zeros(1).expand(10**9, 4),
        "meta": torch.empty(384, 4, device="meta"),
        "parameter": torch.nn.Parameter(torch.zeros(16, 4)),
    }
    torch.save({"model": {"dec.expand.weight": tensors[kind]}, "step": 1}, tmp_path / "best.pt")
    little_memory()
    with pytest.raises(CheckpointError, match=r"no plain tensor|tensors missing"):
        read_codec(tmp_path / "best.pt")

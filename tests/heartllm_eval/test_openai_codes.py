"""`openai` with `codes=CHECKPOINT`: a server of the exported model gives the samples of the checkpoint itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
pytest.importorskip("transformers", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.ecg.recording import Recording
from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm_eval.models import base
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.testing import invented_requests

WORDS = [
    "Age: 61 years.\n",
    "Question: Question 0? Answer: yes",
    "Question: 1? Answer: left axis; no",
    "Report: normal",
]


def write_checkpoint(folder: Path, **changes: Any) -> str:
    """A checkpoint of a small model that nobody trained, with weights large enough for its answers to vary."""
    import torch

    from heartllm.checkpoint import CheckpointConfig, new_language, save_frontend, save_language, write_manifest
    from heartllm.codec.codec import Codec, CodecConfig
    from heartllm.language.model import LanguageConfig, TinyConfig
    from heartllm.language.vocabulary import train_text_tokenizer

    torch.manual_seed(5)
    tokenizer = train_text_tokenizer(WORDS * 3, 290)
    tiny = TinyConfig(hidden=32, layers=2, heads=2, feedforward=48, vocabulary=290)
    codec = CodecConfig(levels=(3, 3, 2, 2), decoder_width=16)
    config = CheckpointConfig(codec, LanguageConfig(tiny=tiny), len(tokenizer), **changes)
    model, front = new_language(config, tokenizer), Codec(codec)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=0.4)
        front.encoder.to_latent.weight.mul_(60)
    save_frontend(front, folder)
    save_language(folder, model, config, {})
    write_manifest(folder)
    return str(folder)


class Made(Workspace):
    """Recordings of noise, each its own; the records of patient 1 cannot be read."""

    def read(self, name: str, record_id: str, reader: Any = None) -> Recording:
        if record_id.startswith("test1"):
            raise DataError("the .dat file is short", where=record_id, remedy="Fetch it again.")
        rng = np.random.default_rng(list(record_id.encode()))
        return Recording(rng.normal(0, rng.uniform(0.2, 3), (12, 5000)).astype(np.float32), 500.0, record_id)


def asked() -> list[Request]:
    questions = invented_requests("test", patients=4)
    pair = replace(questions[0], id="pair", record_ids=("test0v0", "test2v1"))
    return [*questions, pair]


@dataclass
class Served:
    """A server on loopback that completes prompts with an exported model, through transformers alone."""

    url: str = ""
    load: Callable[[Path], None] = lambda folder: None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, serve: Any) -> Served:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    state, loaded, lock = Served(), dict[str, Any](), threading.Lock()

    def load(folder: Path) -> None:
        loaded.update(
            tokenizer=AutoTokenizer.from_pretrained(folder), model=AutoModelForCausalLM.from_pretrained(folder)
        )

    def answer(asked: Any) -> tuple[int, dict[str, str], bytes]:
        body = json.loads(asked.body)
        with lock:
            state.bodies.append(body)
            state.paths.append(asked.path)
            inputs = loaded["tokenizer"](body["prompt"], return_tensors="pt")
            output = loaded["model"].generate(**inputs, max_new_tokens=body["max_tokens"])[0]
            text = loaded["tokenizer"].decode(output[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        said = json.dumps({"object": "text_completion", "choices": [{"index": 0, "text": text}]}).encode()
        return 200, {"Content-Type": "application/json"}, said

    state.url, state.load = serve(answer) + "/v1", load
    return state


def answers(
    kind: str, requests: Sequence[Request], args: dict[str, str], context: base.Context | None = None
) -> dict[str, Prediction]:
    adapter = base.create(kind, args, context or base.Context(Made(), seed=7))
    task = base.Task("t", requests[0].kind, requests, max_new_tokens=6)
    return {prediction.id: prediction for prediction in adapter.predict(requests, task)}


@pytest.mark.parametrize("changes", [{}, {"layout": "question-first"}, {"features": False}], ids=str)
def test_a_server_of_the_export_gives_the_checkpoints_own_samples(
    served: Served, tmp_path: Path, changes: dict[str, Any]
) -> None:
    from heartllm.export import export

    checkpoint = write_checkpoint(tmp_path / "checkpoint", **changes)
    export(Path(checkpoint), tmp_path / "exported")
    served.load(tmp_path / "exported")
    own, there = {"checkpoint": checkpoint}, {"base_url": served.url, "model": "m", "codes": checkpoint}
    found = answers("openai", asked(), there)
    assert found == answers("heartllm", asked(), own)
    assert sum(part.error is not None for part in found.values()) == 6  # the bad recordings' requests
    assert len({part.text for part in found.values()}) > 4
    assert set(served.paths) == {"/v1/completions"}
    body = served.bodies[0]
    assert {name: body[name] for name in body if name != "prompt"} == {
        "model": "m",
        "temperature": 0,
        "seed": 7,
        "max_tokens": 6,
    }
    assert body["prompt"].count("<ecg_") == 313
    assert ("61 years" in body["prompt"]) == changes.get("features", True)
    if changes:
        return
    reports = [replace(request, kind="report", question="") for request in asked()[::3]]
    assert answers("openai", reports, there) == answers("heartllm", reports, own)
    good = [request for request in asked() if not request.id.startswith("test1")]
    for ecg in ("shuffled", "none"):
        control = answers("openai", good, {**there, "ecg": ecg})
        assert control == answers("heartllm", good, {**own, "ecg": ecg})
        assert any(control[request.id].text != found[request.id].text for request in good)


def test_what_is_told_and_kept(served: Served, tmp_path: Path) -> None:
    from heartllm.export import export
    from heartllm.spelling import Speller

    checkpoint = write_checkpoint(tmp_path / "checkpoint", data=("ptbxl:abc",))
    export(Path(checkpoint), tmp_path / "exported")
    served.load(tmp_path / "exported")
    warnings: list[str] = []

    class Hashed(Made):
        def recording_hash(self, name: str, record_id: str) -> str:
            return record_id

    context = base.Context(Hashed(), cache=tmp_path / "cache", warn=warnings.append)
    args = {"base_url": served.url, "model": "m", "codes": checkpoint}
    requests = asked()[:9]
    first = answers("openai", requests, args, context)
    assert len(warnings) == 3  # one a request that cannot be asked
    assert len(list((tmp_path / "cache" / "codes").rglob("*.npy"))) == 2
    assert answers("openai", requests, args, context) == first
    adapter: Any = base.create("openai", args, context)
    about = adapter.describe()
    speller = Speller.load(Path(checkpoint))
    assert (about["checkpoint"], about["codec"]) == (speller.fingerprint, speller.codec_hash)
    assert (about["trained_on"], about["ecg"], about["model"]) == (["ptbxl:abc"], "true", "m")
    shown = adapter.prompt(requests[0], base.Task("t", "qa", requests))
    assert shown == "Age: 61 years.\n<|start_ecg|>[313 codes]<|end_ecg|>Question: Question 0? Answer:"
    assert adapter.prompt(requests[6], base.Task("t", "qa", requests)).startswith("(not asked: test1v0: the .dat")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    from heartllm.checkpoint import save_frontend, write_manifest
    from heartllm.codec.codec import Codec, CodecConfig

    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    save_frontend(Codec(CodecConfig(decoder_width=16)), tmp_path / "codec")
    write_manifest(tmp_path / "codec")

    def create(**args: str) -> None:
        base.create("openai", {"base_url": "http://127.0.0.1:1/v1", "model": "m", **args}, base.Context(Made()))

    create(codes=checkpoint)
    for name, value in (("features", "false"), ("summary", "false"), ("options", "false"), ("image", "true")):
        with pytest.raises(UsageError, match=rf"--model_args: {name}='{value}' beside codes\. Leave it out"):
            create(codes=checkpoint, **{name: value})
    with pytest.raises(UsageError, match="ecg='off'"):
        create(codes=checkpoint, ecg="off")
    with pytest.raises(CheckpointError, match="nowhere: is not a checkpoint"):
        create(codes=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"codes=.*codec: holds no language model"):
        create(codes=str(tmp_path / "codec"))

"""The `hf` adapter with a tiny random Llama that the tests write to a folder, against plain forward passes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm_eval import runner
from heartllm_eval.models import base
from heartllm_eval.planning import RunSpec
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.testing import invented_requests

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
transformers = pytest.importorskip("transformers", reason="needs the model stack: pip install 'heartllm[model]'")

CONTEXT = base.Context(Workspace())
CHAT = (
    "{% for message in messages %}<s>{{ message['role'] }}: {{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer Llama whose weights are large enough for its answers to vary, and a byte-level tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    path = tmp_path_factory.mktemp("tiny")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(path)
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=1, initializer_range=0.4,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def copy_of(folder: Path, tmp_path: Path, *, chat: str | None = None) -> Path:
    path = tmp_path / "copy"
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    if chat is not None:
        (path / "chat_template.jinja").write_text(chat, encoding="utf-8")
        settings = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
        (path / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": chat}), encoding="utf-8")
    return path


def make(folder: Path, context: base.Context = CONTEXT, **args: str) -> Any:
    return base.create("hf", {"model": str(folder), "summary": "false", "dtype": "float32", **args}, context)


def ask(adapter: Any, requests: Sequence[Request], **task: Any) -> dict[str, Prediction]:
    asked = base.Task("t", requests[0].kind, requests, max_new_tokens=8, **task)
    found = {prediction.id: prediction for prediction in adapter.predict(requests, asked)}
    assert set(found) == {request.id for request in requests}
    return found


def varied(patients: int = 4) -> list[Request]:
    """Requests whose prompts differ in content and length."""
    requests = invented_requests("test", patients=patients)
    return [replace(part, question=f"Is it {'very ' * (i % 5)}{i}?") for i, part in enumerate(requests)]


def test_answers_are_those_of_plain_greedy_decoding(folder: Path) -> None:
    requests, adapter = varied(1)[:4], make(folder)
    found = ask(adapter, requests)
    for request in requests:
        ids = adapter.encode(adapter.prompter.prompt(request))
        start = len(ids)
        with torch.inference_mode():
            while len(ids) < start + 8:
                token = int(adapter.model(torch.tensor([ids])).logits[0, -1].argmax())
                if token == 1:
                    break
                ids = [*ids, token]
        text = adapter.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
        assert found[request.id].text == text
    assert len({prediction.text for prediction in found.values()}) > 1


def test_answers_do_not_depend_on_the_batch_size(folder: Path) -> None:
    requests = varied()
    expected = ask(make(folder, replace(CONTEXT, batch_size=1)), requests)
    assert len({prediction.text for prediction in expected.values()}) > 5
    for batch_size, auto in ((3, False), (7, False), (32, True)):
        context = replace(CONTEXT, batch_size=batch_size, auto_batch=auto)
        assert ask(make(folder, context), list(reversed(requests))) == expected


def test_likelihoods_are_those_of_a_plain_forward_pass(folder: Path) -> None:
    adapter = make(folder, replace(CONTEXT, batch_size=2))
    prompt = adapter.tokenizer("Question: is it A?\nAnswer:")["input_ids"]
    texts = ["yes", "no", "left axis deviation", "none"]
    found = adapter.likelihoods(prompt, texts)
    for text, value in zip(texts, found, strict=True):
        answer = [*adapter.tokenizer(" " + text)["input_ids"], 1]
        with torch.inference_mode():
            logits = adapter.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        expected = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
        assert value == pytest.approx(expected, abs=1e-4)
    assert len(set(found)) == len(texts)


def test_options_are_ranked_where_the_task_wants_it(folder: Path) -> None:
    requests = varied(2)
    plain, ranked = ask(make(folder), requests), ask(make(folder), requests, score_options=True)
    assert all(prediction.option_scores is None for prediction in plain.values())
    for request in requests:
        scores = ranked[request.id].option_scores
        assert scores is not None
        assert set(request.options) <= set(scores)
        assert all(value < 0 for value in scores.values())
        assert ranked[request.id].text == plain[request.id].text


@pytest.mark.parametrize("template", [CHAT, NO_SYSTEM])
def test_a_chat_template_is_used(folder: Path, tmp_path: Path, template: str) -> None:
    path = copy_of(folder, tmp_path, chat=template)
    adapter, request = make(path), varied(1)[0]
    text = adapter.tokenizer.decode(adapter.encode(adapter.prompter.prompt(request)))
    roles = ["user"] if template == NO_SYSTEM else ["system", "user"]
    assert [part.split(":")[0].strip() for part in text.split("<s>")[1:]] == [*roles, "assistant"]
    assert text.count("expert in electrocardiography") == 1
    assert adapter.describe()["chat"] is True
    plain = make(path, chat="false")
    assert plain.tokenizer.decode(plain.encode(plain.prompter.prompt(request))).endswith("Answer:")
    assert plain.describe()["chat"] is False


def test_the_description_follows_the_content(folder: Path, tmp_path: Path) -> None:
    path = copy_of(folder, tmp_path)
    known = make(path).describe()
    assert known["files"] == make(folder).describe()["files"]
    (path / "notes.md").write_text("no part of the model", encoding="utf-8")
    assert make(path).describe() == known
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(path)
    assert make(path).describe()["files"] != known["files"]
    assert make(folder, dtype="bfloat16").describe()["dtype"] == "bfloat16"


def test_a_prompt_that_is_too_long_fails_alone(folder: Path) -> None:
    requests = varied(1)
    requests[1] = replace(requests[1], question="very " * 300)
    found = ask(make(folder), requests)
    assert "the model takes 1024" in str(found[requests[1].id].error)
    assert [found[request.id].error for request in requests].count(None) == len(requests) - 1


def test_measurements_are_shown_and_bad_recordings_fail_alone(folder: Path, tmp_path: Path) -> None:
    from heartllm.data.synthetic import simulate

    class Drawn(Workspace):
        reads = 0

        def read(self, name: str, record_id: str, reader: Any = None) -> Any:
            Drawn.reads += 1
            if record_id == "test1v1":
                raise DataError("the .dat file is short", where=record_id, remedy="Fetch it again.")
            return simulate(1, int(record_id[4]) * 2 + int(record_id[-1]))[0]

        def recording_hash(self, name: str, record_id: str) -> str:
            return record_id

    warnings: list[str] = []
    context = base.Context(Drawn(), cache=tmp_path / "cache", warn=warnings.append)
    requests = invented_requests("test", patients=2)
    adapter = make(folder, context, summary="true")
    adapter.limit = 4096
    found = ask(adapter, requests)
    assert sorted(key for key, part in found.items() if part.error) == [f"test1v1-{number}" for number in range(3)]
    assert "the .dat file is short" in warnings[0]
    assert "Heart rate: " in adapter.prompter.prompt(requests[0]).user
    reads = Drawn.reads
    again = make(folder, context, summary="true")
    assert again.prompter.measurements("ptbxl", "test0v0") in adapter.prompter.prompt(requests[0]).user
    assert Drawn.reads == reads  # from the cache folder


def test_prompts_can_be_shown_and_counted(folder: Path) -> None:
    requests, adapter = varied(1), make(folder)
    requests[1] = replace(requests[1], question="very " * 300)
    task = base.Task("t", "qa", requests)
    shown = [adapter.prompt(request, task) for request in requests[:2]]
    assert "Question: Is it 0?" in shown[0]
    assert shown[1].startswith("(not asked: a prompt of ")
    assert adapter.prompt_tokens(requests[0], task) == len(adapter.tokenizer(shown[0])["input_ids"])
    assert adapter.prompt_tokens(requests[1], task) == 0


def test_bad_models_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, told in (
        (str(tmp_path / "none"), "no such folder"),
        ("mistyped", "no such folder"),
        (str(tmp_path / "empty"), "no config.json"),
    ):
        with pytest.raises(UsageError, match=told):
            make(Path(name))
    with pytest.raises(UsageError, match="dtype='int3'"):
        make(folder, dtype="int3")
    path = copy_of(folder, tmp_path)
    weights = path / "model.safetensors"
    good = weights.read_bytes()
    for content in (b"", good[:100], good[: len(good) // 2]):
        weights.write_bytes(content)
        with pytest.raises(CheckpointError, match="transformers cannot load it") as caught:
            make(path)
        assert "\n" not in str(caught.value)
    weights.unlink()
    torch.save({"lm_head.weight": torch.zeros(1)}, path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors"):  # a pickle is not read
        make(path)


def test_no_code_of_the_model_is_run(folder: Path, tmp_path: Path) -> None:
    path = copy_of(folder, tmp_path)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config.update(model_type="foreign", auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        make(path)
    assert not (tmp_path / "ran").exists()


def test_a_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="check its name and the network"):
        make(Path("nobody/no-such-model"))


def test_a_run_with_ranked_options(folder: Path, spec: RunSpec) -> None:
    suite = replace(spec.suites[0], metrics=("exact_match.strict", "exact_match.option_restricted"))
    args = {"model": str(folder), "summary": "false", "dtype": "float32"}
    record = runner.run(replace(spec, model="hf", model_args=args, suites=(suite,), limit="24"))
    assert record.status == "done"
    values = {figure.metric: figure.value for figure in record.figures if figure.slice == "all"}
    assert values["exact_match.strict"] == 0
    assert (values["exact_match.option_restricted"] or 0) > 0

"""Any causal language model that transformers loads: it reads patient features and the ECG's measurements as text.

    heartllm-eval run -M hf -a model=DIR -t ptbxl_qa --device cpu

`model` is a local folder, or a hub name that the user writes out. No code of the model's own is run, and only
safetensors are loaded. Answers are greedy; the tokenizer's chat template is used where it has one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm_eval.metrics.option_ranking import rank_options
from heartllm_eval.models.base import Context, Task, check_device
from heartllm_eval.models.batching import longest_first
from heartllm_eval.models.predictions import file_hash
from heartllm_eval.models.prompting import Prompt, Prompter, failed, flag, number
from heartllm_eval.schema import Prediction, Request

DTYPES = ("auto", "float32", "bfloat16", "float16")
HASHED = (".json", ".safetensors", ".jinja", ".model", ".txt")  # what decides a model's answers
AT_ONCE = 8  # batches whose prompts are made ahead and sorted by length


@dataclass(frozen=True)
class _Asked:
    """A request as tokens."""

    request: Request
    ids: list[int]


class HuggingFace:
    """`--model hf --model_args model=DIR_OR_NAME[,dtype=auto][,ecg=true|shuffled|none]...`.

    Args:
        model: a folder, or a hub name ("org/name"), which may be fetched; revision: of a hub model.
        dtype: "auto" takes the checkpoint's; on a CPU float32 is fastest. threads: of torch.
        chat: use the tokenizer's chat template, if it has one.
        ecg, features, summary, options: what is shown; see `Prompter`.
    """

    def __init__(
        self,
        context: Context,
        *,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        threads: str | None = None,
        chat: str = "true",
        ecg: str = "true",
        features: str = "true",
        summary: str = "true",
        options: str = "true",
    ) -> None:
        if dtype not in DTYPES:
            raise UsageError(f"dtype={dtype!r}", where="--model_args", remedy=f"Choose one of: {', '.join(DTYPES)}.")
        self.context = context
        self.prompter = Prompter(context, ecg=ecg, features=features, summary=summary, options=options)
        self.answers_version = self.prompter.answers_version
        count = None if threads is None else int(number("threads", threads, low=1, whole=True))
        use_chat = flag("chat", chat)
        local = _local_folder(model)
        check_device(context.device)
        self.model, self.tokenizer = _load(model, revision, dtype, context.device, local=local is not None)
        if count is not None:
            import torch

            torch.set_num_threads(count)
        self.chat = use_chat and bool(getattr(self.tokenizer, "chat_template", None))
        self.source: dict[str, Any] = (
            {"files": folder_hash(local)}
            if local is not None
            else {"model": model, "commit": str(getattr(self.model.config, "_commit_hash", None))}
        )
        self.limit = _context_length(self.model, self.tokenizer)
        self.ends = _end_ids(self.model, self.tokenizer)
        self.pad = self.tokenizer.pad_token_id
        if self.pad is None:
            self.pad = self.ends[0] if self.ends else 0  # behind the attention mask, any token does

    def describe(self) -> dict[str, Any]:
        """The model's content, and how it is asked."""
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {**self.source, "dtype": dtype, "chat": self.chat, **self.prompter.describe()}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Generates greedily, in batches of prompts of like length."""
        self.prompter.prepare(task)
        batches = self.context.batches()
        pending = iter(requests)
        while group := list(islice(pending, AT_ONCE * batches.size)):
            asked = []
            for request in group:
                found = self._tokens(request, task)
                if isinstance(found, Prediction):
                    yield found
                else:
                    asked.append(found)
            asked.sort(key=lambda item: (-len(item.ids), item.request.id))
            if batches.auto:
                asked = longest_first(asked, lambda item: len(item.ids), batches.size)
            for item, text in batches.run(asked, lambda part: self.generate(part, task.max_new_tokens)):
                yield Prediction(item.request.id, text, None, self._ranked(item) if task.score_options else None)

    def prompt(self, request: Request, task: Task) -> str:
        """The whole prompt, its special tokens written out (for `--write_out`)."""
        self.prompter.prepare(task)
        found = self._tokens(request, task)
        return f"(not asked: {found.error})" if isinstance(found, Prediction) else str(self.tokenizer.decode(found.ids))

    def prompt_tokens(self, request: Request, task: Task) -> int:
        """The length of the prompt; 0 of a request that cannot be asked."""
        self.prompter.prepare(task)
        found = self._tokens(request, task)
        return 0 if isinstance(found, Prediction) else len(found.ids)

    def _tokens(self, request: Request, task: Task) -> _Asked | Prediction:
        """The prompt's ids (P,); of a request that cannot be asked, the prediction that says why."""
        try:
            ids = self.encode(self.prompter.prompt(request))
        except DataError as error:
            return Prediction(request.id, "", error=failed(self.context, request, error))
        if self.limit is not None and len(ids) + task.max_new_tokens > self.limit:
            reason = f"a prompt of {len(ids)} tokens and {task.max_new_tokens} new ones; the model takes {self.limit}"
            return Prediction(request.id, "", error=reason)
        return _Asked(request, ids)

    def encode(self, prompt: Prompt) -> list[int]:
        """The ids of a prompt; in a chat template that knows no system role, the system text opens the user's."""
        if not self.chat:
            return list(self.tokenizer(prompt.text)["input_ids"])
        user = {"role": "user", "content": prompt.user}
        try:
            text = self._chat_text([{"role": "system", "content": prompt.system}, user])
        except Exception:  # templates raise their own errors (jinja2.TemplateError) for roles they do not know
            text = self._chat_text([{"role": "user", "content": f"{prompt.system}\n\n{prompt.user}"}])
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])  # the template has written them

    def _chat_text(self, messages: Sequence[Mapping[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def generate(self, asked: Sequence[_Asked], max_new_tokens: int) -> list[str]:
        """The greedy continuations; prompts are padded on the left."""
        import torch

        longest = max(len(item.ids) for item in asked)
        ids = torch.full((len(asked), longest), self.pad)
        there = torch.zeros(len(asked), longest, dtype=torch.long)
        for row, item in enumerate(asked):
            ids[row, longest - len(item.ids) :] = torch.tensor(item.ids)
            there[row, longest - len(item.ids) :] = 1
        with torch.inference_mode():
            found = self.model.generate(
                ids.to(self.model.device),
                attention_mask=there.to(self.model.device),
                do_sample=False,
                num_beams=1,
                max_new_tokens=max_new_tokens,
                pad_token_id=self.pad,
                eos_token_id=self.ends or None,
            )
        return [text.strip() for text in self.tokenizer.batch_decode(found[:, longest:], skip_special_tokens=True)]

    def _ranked(self, item: _Asked) -> Mapping[str, float] | None:
        return rank_options(item.request, lambda texts: self.likelihoods(item.ids, texts))

    def likelihoods(self, prompt: Sequence[int], texts: Sequence[str]) -> list[float]:
        """Log likelihoods (N,) in nats of `texts` as the whole answer to a prompt (P,), its end included.

        The prompt is read once; the answers, padded on the right, go on from its cache.
        """
        import torch

        lead = "" if self.chat else " "
        rows = [[*self.tokenizer(lead + text, add_special_tokens=False)["input_ids"], *self.ends[:1]] for text in texts]
        device = self.model.device
        found: list[float] = []
        with torch.inference_mode():
            start = self.model(torch.tensor([list(prompt)], device=device), use_cache=True)
            first = start.logits[0, -1].float().log_softmax(-1)
            for begin in range(0, len(rows), self.context.batch_size):
                part = rows[begin : begin + self.context.batch_size]
                longest = max(map(len, part))
                ids = torch.full((len(part), longest), self.pad, device=device)
                for row, answer in enumerate(part):
                    ids[row, : len(answer)] = torch.tensor(answer, device=device)
                cache = _repeated(start.past_key_values, len(part))
                # Padding lies behind every answer, where causal attention does not look: no mask is needed.
                logits = self.model(ids, past_key_values=cache, use_cache=True).logits.float().log_softmax(-1)
                for row, answer in enumerate(part):
                    rest = logits[row, torch.arange(len(answer) - 1), torch.tensor(answer[1:], device=device)]
                    found.append(float(first[answer[0]] + rest.sum()) if answer else 0.0)
        return found


def _repeated(cache: Any, count: int) -> Any:
    """A copy of a cache of one row for `count` rows."""
    import copy

    repeated = copy.deepcopy(cache)
    repeated.batch_repeat_interleave(count)
    return repeated


def _local_folder(model: str) -> Path | None:
    """The folder that `model` names; None if it is a hub name.

    Raises:
        UsageError: if it is neither.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(
                "no config.json in it",
                where=f"model={model}",
                remedy="Name a folder that transformers' save_pretrained has written.",
            )
        return path.resolve()
    # A bare name would send a mistyped folder to the hub, whose models are called org/name.
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise UsageError("no such folder", where=f"model={model}", remedy="Name a folder, or a hub model as org/name.")
    return None


def _load(model: str, revision: str | None, dtype: str, device: str, *, local: bool) -> tuple[Any, Any]:
    """Model and tokenizer, without running any code that comes with them.

    Raises:
        CheckpointError: if transformers cannot load them.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    common = {"local_files_only": local, "trust_remote_code": False}
    if not local and revision is not None:
        common["revision"] = revision  # type: ignore[assignment]
    kind = dtype if dtype == "auto" else getattr(torch, dtype)
    release = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    name = "dtype" if release >= (4, 56) else "torch_dtype"  # renamed there
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, **common)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            model, **{name: kind}, use_safetensors=True, **common
        )
        loaded = loaded.to(device).eval()
    except Exception as error:  # whatever a foreign file makes a library raise: the user gets its first line
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:200] if lines else type(error).__name__
        remedy = "It must hold a causal language model with config.json, tokenizer and safetensors"
        raise CheckpointError(
            f"transformers cannot load it ({type(error).__name__}: {reason.rstrip('.')})",
            where=f"model={model}",
            remedy=f"{remedy}, and need no code of its own." if local else f"{remedy}; check its name and the network.",
        ) from None
    return loaded, tokenizer


def folder_hash(folder: Path) -> str:
    """One hash of the content of a model folder's weights, configuration and tokenizer."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in HASHED:
            total.update(f"{path.name} {file_hash(path)}\n".encode())
    return total.hexdigest()


def _context_length(model: Any, tokenizer: Any) -> int | None:
    """The tokens that the model takes, by its configuration, else by its tokenizer; None where neither knows."""
    length = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    if length is None and tokenizer.model_max_length < 1 << 30:
        length = tokenizer.model_max_length
    return None if length is None else int(length)


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end an answer: the tokenizer's first, then those of the generation settings."""
    named = getattr(model.generation_config, "eos_token_id", None)
    others = named if isinstance(named, list) else [named]
    return list(dict.fromkeys(int(i) for i in (tokenizer.eos_token_id, *others) if i is not None))

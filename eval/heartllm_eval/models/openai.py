"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, Ollama, hosted models.

    OPENAI_API_KEY=... heartllm-eval run -M openai -a base_url=http://127.0.0.1:8000/v1,model=NAME -t ptbxl_qa

The model reads patient features and the ECG's measurements as text, with `image=true` also the ECG's plot. With
`codes=CHECKPOINT` the server runs that checkpoint as `heartllm export` wrote it, and completes its own prompts: ECG
codes, no chat. The key comes from the environment and is written nowhere. A request that fails after all retries has no
answer and counts as wrong; a server that fails every one of the first `give_up_after` requests ends the run, and
nothing of it is kept.
"""

from __future__ import annotations

import base64
import os
import queue
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heartllm.errors import DataError, UsageError
from heartllm.plain import plain
from heartllm_eval.models.base import Context, Task
from heartllm_eval.models.chat_client import ChatClient, Pace, RequestFailed, Retrying, Stopped, checked_address
from heartllm_eval.models.heartllm import shortened
from heartllm_eval.models.own_prompts import OwnPrompter
from heartllm_eval.models.prompting import Prompt, Prompter, failed, number
from heartllm_eval.schema import Prediction, Request

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

KEY_VARIABLE = "OPENAI_API_KEY"
OMITTABLE = ("temperature", "seed")
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
IMAGE_DPI = 100.0  # an ECG of 10 s is 1,100 pixels wide


@dataclass(frozen=True)
class Answer:
    """A prediction; `lasting` if asking again would fail again."""

    prediction: Prediction
    lasting: bool = True


class OpenAI:
    """`--model openai --model_args base_url=URL,model=NAME[,image=true]...`.

    Args:
        base_url: the server, up to and with "/v1". model: its name for the model.
        key_env: the environment variable that holds the key; without one in it, no key is sent.
        concurrency: requests under way at once. requests_per_minute: no more than these are started.
        timeout: seconds that a reply may take. retries, first_wait: see `Retrying`.
        give_up_after: the run ends if this many requests fail before any succeeds.
        max_tokens: where an answer is cut off; the suite's limit by default. token_field: what the server calls it.
        omit: fields that the server does not accept, joined with "+": temperature+seed.
        codes: the checkpoint that the served model was exported from; see `OwnPrompter`.
        ecg, features, summary, image, options: what is shown; see `Prompter`. With `codes`, only `ecg` may be given.
    """

    def __init__(
        self,
        context: Context,
        *,
        base_url: str,
        model: str,
        key_env: str = KEY_VARIABLE,
        concurrency: str = "4",
        requests_per_minute: str | None = None,
        timeout: str = "60",
        retries: str = "6",
        first_wait: str = "1",
        give_up_after: str = "5",
        max_tokens: str | None = None,
        token_field: str = "max_tokens",
        omit: str = "",
        codes: str | None = None,
        ecg: str = "true",
        features: str = "true",
        summary: str = "true",
        image: str = "false",
        options: str = "true",
    ) -> None:
        self.context, self.model, self.base_url = context, model, base_url
        self.prompter: Prompter | OwnPrompter
        if codes is None:
            self.prompter = Prompter(context, ecg=ecg, features=features, summary=summary, image=image, options=options)
        else:
            _nothing_else(features=features, summary=summary, image=image, options=options)
            self.prompter = OwnPrompter(context, codes, ecg=ecg)
        self.chat = codes is None
        self.answers_version = self.prompter.answers_version
        self.concurrency = int(number("concurrency", concurrency, low=1, high=256, whole=True))
        self.give_up_after = int(number("give_up_after", give_up_after, low=1, whole=True))
        self.max_tokens = None if max_tokens is None else int(number("max_tokens", max_tokens, low=1, whole=True))
        self.omit = tuple(part for part in omit.split("+") if part)
        _one_of("token_field", (token_field,), TOKEN_FIELDS)
        _one_of("omit", self.omit, OMITTABLE)
        self.token_field = token_field
        per_minute = None if requests_per_minute is None else number("requests_per_minute", requests_per_minute, low=0)
        if per_minute == 0:
            raise UsageError(
                "requests_per_minute=0", where="--model_args", remedy="Leave it out to send without a limit."
            )
        self._client = ChatClient(
            base_url,
            key=read_key(key_env),
            timeout=number("timeout", timeout, low=0.01),
            retrying=Retrying(
                int(number("retries", retries, low=0, whole=True)), number("first_wait", first_wait, low=0)
            ),
            pace=Pace(per_minute),
            chat=self.chat,
            tell=lambda line: print(plain(line), file=sys.stderr),
        )

    @staticmethod
    def check_arguments(model_args: Mapping[str, str]) -> None:
        """Refuses an address with a password in it, and a key in place of a variable's name."""
        checked_address(model_args["base_url"])
        read_key(model_args.get("key_env", KEY_VARIABLE))

    def describe(self) -> dict[str, Any]:
        """The model's name and what it is shown. What a server runs under that name it alone knows."""
        about = {"base_url": self.base_url, "model": self.model, "omit": list(self.omit), "max_tokens": self.max_tokens}
        return {**about, **self.prompter.describe()}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Sends the requests from several threads; answers come in the order in which they arrive."""
        self.prompter.prepare(task)
        self._client.stop.clear()
        workers = _Workers(self, requests, self.max_tokens or task.max_new_tokens)
        failures: list[Answer] = []  # kept back until one succeeds, so that a server that is mended is asked again
        answered = False
        try:
            for answer in workers.results():
                answered = answered or answer.prediction.error is None
                failures.append(answer)
                if not answered and len(failures) >= self.give_up_after:
                    self._give_up(failures)
                if answered:
                    yield from (kept.prediction for kept in failures)
                    failures.clear()
            if any(not answer.lasting for answer in failures):
                self._give_up(failures)
            yield from (kept.prediction for kept in failures)
        finally:
            self._client.stop.set()  # threads that wait for a retry or their turn end now

    def _give_up(self, failures: Sequence[Answer]) -> None:
        raise DataError(
            f"the first {len(failures)} requests all failed; the last: {failures[-1].prediction.error}",
            where=self._client.url,
            remedy="Check the server and base_url, then give the same command again; retries=0 gives up at once.",
        )

    def prompt(self, request: Request, task: Task) -> str:
        """What is sent, in words (for `--write_out`)."""
        self.prompter.prepare(task)
        try:
            shown = self.prompter.prompt(request)
        except DataError as error:
            return f"(not asked: {error})"
        if not self.chat:
            return shortened(shown.user)
        return "\n\n".join([shown.system, *("[image of the ECG]" for _ in shown.recordings), shown.user])

    def body(self, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        """The JSON of one request."""
        content: Any = prompt.user
        if prompt.recordings:
            images = [{"type": "image_url", "image_url": {"url": image_url(part)}} for part in prompt.recordings]
            content = [*images, {"type": "text", "text": prompt.user}]
        messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}]
        fields = {
            "model": self.model,
            **({"messages": messages} if self.chat else {"prompt": prompt.user}),
            "temperature": 0,
            "seed": self.context.seed,
            self.token_field: max_tokens,
        }
        return {name: value for name, value in fields.items() if name not in self.omit}

    def ask(self, request: Request, prompt: Prompt, max_tokens: int) -> Answer:
        """One request, with its retries."""
        try:
            return Answer(Prediction(request.id, self._client.complete(self.body(prompt, max_tokens)).strip()))
        except RequestFailed as error:
            return Answer(Prediction(request.id, "", error=str(error)), lasting=error.lasting)


class _Workers:
    """Threads that take requests from a list and put answers into a queue; daemons, so that Ctrl-C ends at once."""

    def __init__(self, owner: OpenAI, requests: Sequence[Request], max_tokens: int) -> None:
        self.owner, self.max_tokens, self.count = owner, max_tokens, len(requests)
        self.pending = iter(requests)
        self.lock = threading.Lock()
        self.done: queue.Queue[Answer | BaseException] = queue.Queue()
        self.threads = [
            threading.Thread(target=self._work, daemon=True, name=f"ask-{index}")
            for index in range(min(owner.concurrency, len(requests)))
        ]

    def results(self) -> Iterator[Answer]:
        """The answers as they arrive; raises what a thread raised."""
        for thread in self.threads:
            thread.start()
        for _ in range(self.count):
            found = self.done.get()
            if isinstance(found, BaseException):
                raise found
            yield found

    def _work(self) -> None:
        try:
            while not self.owner._client.stop.is_set():
                with self.lock:  # datasets and plots are made for one thread
                    request = next(self.pending, None)
                    if request is None:
                        return
                    prompt = self._prompt(request)
                answer = prompt if isinstance(prompt, Answer) else self.owner.ask(request, prompt, self.max_tokens)
                self.done.put(answer)
        except Stopped:
            return
        except BaseException as error:
            self.done.put(error)

    def _prompt(self, request: Request) -> Prompt | Answer:
        try:
            return self.owner.prompter.prompt(request)
        except DataError as error:
            return Answer(Prediction(request.id, "", error=failed(self.owner.context, request, error)))


def image_url(recording: Recording) -> str:
    """The ECG on paper as a PNG in a data URL, without the recording's id."""
    import io

    from heartllm.ecg.plot import plot_ecg

    stream = io.BytesIO()
    figure = plot_ecg(recording, title="")
    figure.savefig(stream, format="png", dpi=IMAGE_DPI, facecolor=figure.get_facecolor())
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def read_key(variable: str) -> str | None:
    """The key in an environment variable; None where the default variable is not set.

    Raises:
        UsageError: for a variable that was named and is not set, or a key that no header can hold.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        if variable != KEY_VARIABLE:
            raise UsageError(
                "key_env names no such environment variable",  # which is not repeated: it may be the key itself
                where="--model_args",
                remedy="Name the variable that holds the key, not the key, and set it; or leave key_env out.",
            )
        return None
    if not key.isascii() or not key.isprintable():
        raise UsageError(
            f"the key in {variable} holds characters that no header can", where="key_env", remedy="Set it again."
        )
    return key


def _one_of(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    for value in values:
        if value not in known:
            raise UsageError(f"{name}={value!r}", where="--model_args", remedy=f"Choose one of: {', '.join(known)}.")


def _nothing_else(**given: str) -> None:
    """What `Prompter` would show has no place in a checkpoint's own prompts."""
    for name, value in given.items():
        if value != ("false" if name == "image" else "true"):
            raise UsageError(
                f"{name}={value!r} beside codes",
                where="--model_args",
                remedy="Leave it out: with codes=CHECKPOINT, prompts are those it was trained on.",
            )

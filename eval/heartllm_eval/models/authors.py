"""The checkpoint of HeartLLM's authors, asked as they ask it (mode `compat`). Torch loads only here."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from heartllm.errors import UsageError
from heartllm_eval.models.base import Context, Task
from heartllm_eval.models.heartllm import ECG_MODES, HeartLLM, by_recording, shuffled_recordings
from heartllm_eval.schema import Prediction, Request, digest

CHOICES = {
    "leads": ("stored", "ptbxl", "mimic"),
    "ecg": ECG_MODES,
    "base": ("file", "backbone"),
    "dtype": ("float32", "bfloat16", "float16"),
}


@lru_cache(maxsize=1)
def _model(
    files: tuple[Path, Path, Path], prompts: Any, leads: str, base: str, alpha: float, dtype: str, device: str
) -> Any:
    """The model; shared by a run's systems."""
    module: Any = importlib.import_module("heartllm.compat.model")
    torch: Any = importlib.import_module("torch")
    return module.AuthorsModel.read(
        *files, prompts, leads=leads, base=base, alpha=alpha, dtype=getattr(torch, dtype), device=device
    )


class Authors(HeartLLM):
    """`--model authors --model_args codec=best.pt,llm=checkpoint_epoch0.pth,backbone=DIR` and, where wished,

    leads=stored|ptbxl|mimic (order of the codec's slots; "stored" is theirs), ecg=true|shuffled|none,
    prompts=FILE.toml, base=file|backbone (where base weights come from), alpha=16 (of their LoRA),
    dtype=float32|bfloat16|float16.

    Questions stand before the ECG, without the patient's features; answers have up to 170 tokens and reports 200,
    whatever the suite says. Their own score is `exact_match.heartllm`.
    """

    def __init__(
        self,
        context: Context,
        *,
        codec: str,
        llm: str,
        backbone: str,
        leads: str = "stored",
        ecg: str = "true",
        prompts: str = "",
        base: str = "file",
        alpha: str = "16",
        dtype: str = "float32",
    ) -> None:
        given = {"leads": leads, "ecg": ecg, "base": base, "dtype": dtype}
        for name, value in given.items():
            if value not in CHOICES[name]:
                raise UsageError(
                    f"{name}={value!r}", where="--model_args", remedy=f"Choose one of: {', '.join(CHOICES[name])}."
                )
        try:
            scale = float(alpha)
        except ValueError:
            raise UsageError(f"alpha={alpha!r}", where="--model_args", remedy="Write a number: alpha=16.") from None
        self._module: Any = importlib.import_module("heartllm.compat.prompts")
        self.context, self.ecg, self.base = context, ecg, base
        self.prompts = self._module.load_prompts(Path(prompts) if prompts else None)
        files = (Path(codec), Path(llm), Path(backbone))
        self.responder = _model(files, self.prompts, leads, base, scale, dtype, context.device)
        self._codes = {}
        for note in self.responder.notes:
            context.warn(f"authors: {note}")
        if not prompts:
            context.warn("authors: the prompts are the authors' in substance, not in their words (see prompts=FILE)")

    def describe(self) -> dict[str, Any]:
        """The files' content, and how they are asked."""
        shown: dict[str, Any] = {
            "mode": "compat",
            "fingerprint": self.responder.fingerprint,
            "codec": self.responder.codec_hash,
            "leads": self.responder.leads,
            "base": self.base,
            "prompts": digest(self.prompts.qa, self.prompts.report, str(self.prompts.bos)),
            "max_new_tokens": dict(self._module.MAX_NEW_TOKENS),
            "ecg": self.ecg,
        }
        return {**shown, "seed": self.context.seed} if self.ecg == "shuffled" else shown

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Generates greedily, batch by batch."""
        item_of: Any = importlib.import_module("heartllm.language.generation").ResponderItem
        donors = shuffled_recordings(task.requests, self.context.seed) if self.ecg == "shuffled" else {}
        pending = iter(by_recording(requests))
        while group := list(islice(pending, max(64, 4 * self.context.batch_size))):
            items, answered = [], []
            for request in group:
                record = request.record_ids[0]
                codes = None if self.ecg == "none" else self.codes(request.dataset, donors.get(record, record))
                if isinstance(codes, str):
                    yield Prediction(request.id, "", error=codes)
                    continue
                question = request.question if request.kind == "qa" else None
                background = "" if question is not None else self._background(request)
                items.append(item_of(record, codes, question, background))
                answered.append(request)
            for request, text in zip(
                answered, self.responder.answer(items, batch_size=self.context.batch_size), strict=True
            ):
                yield Prediction(request.id, text)

    def _background(self, request: Request) -> str:
        """Their patient text, which only their report prompt shows."""
        entry = self.context.workspace.entry(request.dataset, request.record_ids[0])
        return str(self._module.authors_background(entry))

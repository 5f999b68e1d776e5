"""The checkpoint of HeartLLM's authors, asked as they ask it (mode `compat`). Torch loads only here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from heartllm.errors import UsageError
from heartllm_eval.models.base import Context, Task, check_device
from heartllm_eval.models.ecg_codes import ECGCodes
from heartllm_eval.models.heartllm import ECG_MODES, HeartLLM
from heartllm_eval.schema import Request, digest

CODES = 313  # of ten seconds
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
        check_device(context.device)
        self.responder = _model(files, self.prompts, leads, base, scale, dtype, context.device)
        self._codes = ECGCodes(context, self.responder)
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

    def prompt(self, request: Request, task: Task) -> str:
        """The whole prompt, with the ECG's codes shortened."""
        question = request.question if request.kind == "qa" else None
        before, after = self.prompts.parts(question, self._background(request))
        shown = 0 if self.ecg == "none" else len(request.record_ids)
        return f"{before}{f'[ECG: {CODES} codes]' * shown}{after}"

    def prompt_tokens(self, request: Request, task: Task) -> int:
        """The length of the prompt; an ECG counts 313 codes and two marks."""
        module: Any = importlib.import_module("heartllm.responder")
        shown = 0 if self.ecg == "none" else len(request.record_ids)
        codes = np.zeros((shown, CODES), np.int64) if shown else None
        question = request.question if request.kind == "qa" else None
        return len(self.responder.ids(module.ResponderItem("", codes, question, self._background(request))))

    def _item(self, request: Request, task: Task, donors: Mapping[str, str]) -> Any:
        """A question without the patient's features; a report with the authors' patient text."""
        item = super()._item(request, task, donors)
        return item if isinstance(item, str) else replace(item, features=self._background(request))

    def _background(self, request: Request) -> str:
        if request.kind == "qa":
            return ""
        entry = self.context.workspace.entry(request.dataset, request.record_ids[0])
        return str(self._module.authors_background(entry))

    def _ranked(self, request: Request, item: Any) -> None:
        self.context.warn("authors: answers are not ranked; their model is scored on what it writes")

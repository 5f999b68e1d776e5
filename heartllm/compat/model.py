"""The authors' model at work: their codec, their prompts, greedy answers. What it gives is of mode `compat`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from heartllm.codec.codec import Codec
from heartllm.compat.codec import MIMIC_FORMAT, SLOTS, LeadOrder, read_codec
from heartllm.compat.language import ALPHA, BaseWeights, read_language
from heartllm.compat.prompts import MAX_NEW_TOKENS, Prompts
from heartllm.ecg.recording import LEADS, SAMPLING_RATE, Recording
from heartllm.errors import DataError
from heartllm.frontends.base import SAMPLES
from heartllm.language.generation import ResponderItem
from heartllm.language.vocabulary import Vocabulary

PRECISION = "codes are made in float32; the authors' scoring made them in bfloat16, where about 5 % of them differ"
Leads = Literal["stored", "ptbxl", "mimic"]


class AuthorsModel:
    """A causal LM whose vocabulary is the authors' (see `heartllm.compat.language`), and the codec it was tuned with.

    Attributes:
        leads: "stored" fills the codec's slots in the order in which each dataset's files store leads, as the authors
            do (so that aVL and aVF change places between PTB-XL and MIMIC); "ptbxl" or "mimic" always in that order.
        fingerprint: one hash of all that decides answers, prompts apart.
        codec_hash: key of any cache of codes.
        notes: what a reader of its numbers should know.
    """

    def __init__(
        self,
        codec: Codec,
        model: Any,
        vocabulary: Vocabulary,
        prompts: Prompts,
        *,
        leads: Leads = "stored",
        hashes: Sequence[str] = ("", ""),
        notes: Sequence[str] = (),
        device: str = "cpu",
    ) -> None:
        self.codec, self.model, self.vocabulary = codec, model.to(device).eval(), vocabulary
        self.prompts, self.leads, self.device, self.notes = prompts, leads, device, (PRECISION, *notes)
        self.codec_hash = fingerprint(hashes[0], leads)
        self.fingerprint = fingerprint(*hashes, leads)

    @classmethod
    def read(
        cls,
        codec: Path,
        language: Path,
        backbone: Path,
        prompts: Prompts,
        *,
        leads: Leads = "stored",
        base: BaseWeights = "file",
        alpha: float = ALPHA,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> AuthorsModel:
        """Reads `best.pt` and `checkpoint_epoch0.pth`; see `read_codec` and `read_language` for what they raise."""
        tokenizer = read_codec(codec)
        found = read_language(language, backbone, tokenizer, base=base, alpha=alpha, dtype=dtype)
        hashes = (tokenizer.hash, found.hash, found.base, f"{alpha:g}", str(dtype))
        return cls(
            tokenizer.codec,
            found.model,
            found.vocabulary,
            prompts,
            leads=leads,
            hashes=hashes,
            notes=found.notes,
            device=device,
        )

    def encode(self, recording: Recording) -> npt.NDArray[np.int64]:
        """A 10 s recording at 500 Hz -> codes (313,), each lead z-scored over the record.

        Raises:
            DataError: for another length or rate, or a NaN, which would make all 313 codes meaningless.
        """
        if recording.sampling_rate != SAMPLING_RATE or recording.signal.shape[1] != SAMPLES:
            raise DataError(
                f"lasts {recording.duration:.2f} s at {recording.sampling_rate:g} Hz; the codec wants 10 s at 500 Hz",
                where=recording.path or recording.record_id,
                remedy='Read it with target_rate=500 and length="crop" (or windows).',
            )
        signal = recording.signal[[LEADS.index(lead) for lead in SLOTS[slot_order(self.leads, recording.source)]]]
        codes: npt.NDArray[np.int64] = self.codec.encode(torch.from_numpy(signal)[None])[0].numpy()
        return codes

    def ids(self, item: ResponderItem) -> list[int]:
        """The whole prompt: the question, then the ECG, then the word that the answer follows."""
        before, after = self.prompts.parts(item.question, item.features)
        words = [*(self.vocabulary.bos if self.prompts.bos else []), *self.vocabulary.text(before)]
        blocks = np.zeros((0, 0), np.int64) if item.codes is None else np.atleast_2d(item.codes)
        ecg = [token for block in blocks for token in self.vocabulary.ecg(block).tolist()]
        return [*words, *ecg, *self.vocabulary.text(after)]

    def answer(
        self, items: Sequence[ResponderItem], *, max_new_tokens: int | None = None, batch_size: int = 16
    ) -> Iterator[str]:
        """Greedy answers in the order of the items.

        Up to 170 new tokens for a question and 200 for a report, whatever `max_new_tokens` says: it is here so that
        the method is called like a `Responder`'s.
        """
        for first in range(0, len(items), batch_size):
            yield from self._answer_group(items[first : first + batch_size])

    @torch.inference_mode()
    def _answer_group(self, group: Sequence[ResponderItem]) -> list[str]:
        from transformers import GenerationConfig

        pad, end = self.vocabulary.base - 1, self.vocabulary.eos
        prompts = [self.ids(item) for item in group]
        longest = max(map(len, prompts))
        ids = torch.full((len(group), longest), pad)
        seen = torch.zeros(len(group), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):  # on the right, so that answers begin side by side
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            seen[row, longest - len(prompt) :] = 1
        most = [MAX_NEW_TOKENS["report" if item.question is None else "qa"] for item in group]
        settings = GenerationConfig(do_sample=False, max_new_tokens=max(most), eos_token_id=end, pad_token_id=pad)
        found = self.model.generate(
            ids.to(self.device), attention_mask=seen.to(self.device), generation_config=settings
        )[:, longest:].tolist()
        cut = [row[: row.index(end)] if end in row else row for row in found]
        return [self.vocabulary.decode(row[:limit]) for row, limit in zip(cut, most, strict=True)]


def slot_order(leads: Leads, source: str) -> LeadOrder:
    """The order in which a recording of the dataset `source` fills the codec's slots."""
    if leads == "stored":
        return "mimic" if source in MIMIC_FORMAT else "ptbxl"
    return leads


def fingerprint(*parts: str) -> str:
    """One hash of several texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

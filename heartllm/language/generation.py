"""Answers from a checkpoint: greedy, batched, each ECG read once for all its questions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Ids, collate, pack
from heartllm.language.prompts import Layout, answer_ids, prefix_ids, prompt_ids

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True)
class ResponderItem:
    """One thing to ask.

    Attributes:
        recording_key: items that follow each other with the same key share one reading of the ECG.
        codes: (N,) codes, or None to ask without an ECG.
        question: the question, or None for a report.
        features: patient features as text, or "".
    """

    recording_key: str
    codes: npt.NDArray[np.integer[Any]] | None
    question: str | None
    features: str = ""


class Generator:
    """Greedy generation with any causal LM that holds text and ECG rows in one table (see `ECGLanguageModel.table`)."""

    def __init__(self, model: ECGLanguageModel, layout: Layout = "ecg-first") -> None:
        self.model, self.vocabulary, self.layout = model.eval(), model.vocabulary, layout
        with torch.no_grad():
            self.table, self.output = model.table(), model.output_table()
        self.device = self.table.device

    @torch.inference_mode()
    def answer(
        self, items: Sequence[ResponderItem], *, max_new_tokens: int = 64, batch_size: int = 32
    ) -> Iterator[str]:
        """The answers, in the order of the items; at most `batch_size` continuations run side by side."""
        for _, group in itertools.groupby(
            items, key=lambda item: (item.recording_key, item.features, item.codes is None)
        ):
            same = list(group)
            for first in range(0, len(same), batch_size):
                yield from self._answer_one_ecg(same[first : first + batch_size], max_new_tokens)

    def _answer_one_ecg(self, items: Sequence[ResponderItem], max_new_tokens: int) -> list[str]:
        """Items about one ECG -> answers. The prefix is computed once and its cache repeated for each question."""
        if self.layout == "question-first":
            return [text for item in items for text in self._continue(self._prefix(item), [item], max_new_tokens)]
        return self._continue(self._prefix(items[0]), items, max_new_tokens)

    def _prefix(self, item: ResponderItem) -> Ids:
        question = item.question if self.layout == "question-first" else None
        return prefix_ids(self.vocabulary, item.features, item.codes, question)[0]

    def _continue(self, prefix: Ids, items: Sequence[ResponderItem], max_new_tokens: int) -> list[str]:
        cache, length, device = self._read(prefix), len(prefix), self.device
        if length:
            cache.batch_repeat_interleave(len(items))
        prompts = [prompt_ids(self.vocabulary, item.question, self.layout) for item in items]
        longest = max(map(len, prompts))
        ids = torch.full((len(items), longest), self.vocabulary.pad, device=device)
        seen = torch.zeros(len(items), length + longest, dtype=torch.long, device=device)
        seen[:, :length] = 1
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.from_numpy(prompt)
            seen[row, length : length + len(prompt)] = 1
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
        positions = length + torch.arange(longest, device=device).expand(len(items), -1)
        states = self._step(ids, positions, seen, cache)
        token = (states[torch.arange(len(items), device=device), last] @ self.output.T).argmax(-1)
        generated, done = [token], token == self.vocabulary.eos
        for index in range(1, max_new_tokens):
            if bool(done.all()):
                break
            seen = torch.cat([seen, seen.new_ones(len(items), 1)], 1)
            states = self._step(token[:, None], (length + last + index)[:, None], seen, cache)
            token = torch.where(done, self.vocabulary.eos, (states[:, -1] @ self.output.T).argmax(-1))
            generated.append(token)
            done |= token == self.vocabulary.eos
        rows = torch.stack(generated, 1).tolist()
        return [self.vocabulary.decode([i for i in row if i != self.vocabulary.eos]) for row in rows]

    def _read(self, prefix: Ids) -> DynamicCache:
        """Runs the prefix (P,) once and returns its key-value cache, batch 1."""
        from transformers import DynamicCache

        cache = DynamicCache()
        if not len(prefix):  # blind, and a backbone without a token that opens a sequence
            return cache
        ids = torch.from_numpy(prefix)[None].to(self.device)
        self._step(ids, torch.arange(len(prefix), device=self.device)[None], torch.ones_like(ids), cache)
        return cache

    def _step(self, ids: Tensor, positions: Tensor, seen: Tensor, cache: DynamicCache) -> Tensor:
        """ids (B, S), positions (B, S), seen (B, cached + S) -> hidden states (B, S, hidden); the cache grows by S."""
        embedded = torch.nn.functional.embedding(ids, self.table)
        output = self.model.body(
            inputs_embeds=embedded, position_ids=positions, attention_mask=seen, past_key_values=cache, use_cache=True
        )
        return output.last_hidden_state

    @torch.inference_mode()
    def option_scores(
        self, item: ResponderItem, questions: Sequence[str], options: Sequence[str]
    ) -> npt.NDArray[np.float64]:
        """Log likelihoods (Q, O) in nats of each option as the whole answer to each question about one ECG."""
        prefix = prefix_ids(self.vocabulary, item.features, item.codes)[0]
        answers = [answer_ids(self.vocabulary, option) for option in options]
        pairs = [(prompt_ids(self.vocabulary, question), answer) for question in questions for answer in answers]
        batch = collate([pack(prefix, pairs)], self.vocabulary.pad).to(self.device)
        hidden = self.model.hidden_states(batch.ids, batch.positions, batch.mask, table=self.table)[0]
        kept = batch.labels[0] != IGNORED
        losses = self.model.token_losses(hidden[kept], batch.labels[0][kept], table=self.output)
        scores = losses.new_zeros(len(pairs)).index_add_(0, batch.branch[0][kept] - 1, -losses)
        return scores.reshape(len(questions), len(options)).double().cpu().numpy()

"""Answers from a checkpoint: greedy, batched, each ECG read once for all its questions."""

from __future__ import annotations

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
        codes: (N,) codes of one ECG, (E, N) of several that the question compares, or None to ask without an ECG.
        question: the question, or None for a report.
        features: patient features as text, or "".
    """

    recording_key: str
    codes: npt.NDArray[np.integer[Any]] | None
    question: str | None
    features: str = ""


def _same_ecg(a: ResponderItem, b: ResponderItem) -> bool:
    return (a.recording_key, a.features, a.codes is None) == (b.recording_key, b.features, b.codes is None)


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
        for group in self._groups(items, batch_size):
            yield from self._answer_group(group, max_new_tokens)

    def _groups(self, items: Sequence[ResponderItem], size: int) -> Iterator[list[tuple[Ids, list[ResponderItem]]]]:
        """At most `size` items at a time, as (prefix, its items); neighbours about one ECG share a prefix."""
        group: list[tuple[Ids, list[ResponderItem]]] = []
        for first in range(0, len(items), size):
            for item in items[first : first + size]:
                previous = group[-1][1][-1] if group else None
                if previous is not None and self.layout == "ecg-first" and _same_ecg(previous, item):
                    group[-1][1].append(item)
                else:
                    question = item.question if self.layout == "question-first" else None
                    group.append((prefix_ids(self.vocabulary, item.features, item.codes, question)[0], [item]))
            yield group
            group = []

    def _answer_group(self, group: Sequence[tuple[Ids, list[ResponderItem]]], max_new_tokens: int) -> list[str]:
        """Reads each prefix once, repeats its cache for its items, and continues all items side by side.

        Prefixes and prompts are padded on the right; `seen` hides the padding and positions pass over it.
        """
        device, items = self.device, [item for _, same in group for item in same]
        owner = torch.tensor([row for row, (_, same) in enumerate(group) for _ in same], device=device)
        length = torch.tensor([len(prefix) for prefix, _ in group], device=device)[owner]
        cache, read = self._read([prefix for prefix, _ in group])
        if read.shape[1]:
            cache.batch_select_indices(owner)
        prompts = [prompt_ids(self.vocabulary, item.question, self.layout) for item in items]
        ids, asked = self._pad(prompts)
        last = asked.sum(1) - 1
        positions = length[:, None] + torch.arange(ids.shape[1], device=device)
        seen = torch.cat([read[owner], asked], 1)
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

    def _pad(self, sequences: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Sequences -> ids (B, S) padded on the right, and (B, S) int64: 1 where there is a token."""
        longest = max(map(len, sequences))
        ids = torch.full((len(sequences), longest), self.vocabulary.pad)
        there = torch.zeros(len(sequences), longest, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.from_numpy(sequence)
            there[row, : len(sequence)] = 1
        return ids.to(self.device), there.to(self.device)

    def _read(self, prefixes: Sequence[Ids]) -> tuple[DynamicCache, Tensor]:
        """Runs the prefixes and returns their key-value cache and (B, S) where it holds a token."""
        from transformers import DynamicCache

        cache = DynamicCache()
        ids, there = self._pad(prefixes)
        if ids.shape[1]:  # a blind model's prefix is empty where the backbone has no token that opens a sequence
            positions = torch.arange(ids.shape[1], device=self.device).expand(len(prefixes), -1)
            self._step(ids, positions, there, cache)
        return cache, there

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

"""Answers from a checkpoint: greedy, batched, each ECG read once for all its questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Ids, Values, collate, pack, pad_values
from heartllm.language.prompts import Layout, answer_ids, prefix_ids, prompt_ids, soft_values
from heartllm.language.vocabulary import ECG

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True)
class ResponderItem:
    """One thing to ask.

    Attributes:
        recording_key: items that follow each other with the same key share one reading of the ECG.
        codes: (N,) codes of one ECG, (E, N) of several that the question compares, or None to ask without an ECG. Of a
            continuous front-end (N, width) or (E, N, width) values.
        question: the question, or None for a report.
        features: patient features as text, or "".
    """

    recording_key: str
    codes: ECG | None
    question: str | None
    features: str = ""


def _same_ecg(a: ResponderItem, b: ResponderItem) -> bool:
    return (a.recording_key, a.features, a.codes is None) == (b.recording_key, b.features, b.codes is None)


@dataclass(frozen=True)
class Asked:
    """A prefix (P,), the values behind its placeholders (M, width) or None, and the items that share it."""

    prefix: Ids
    values: Values | None
    items: list[ResponderItem]


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

    def _groups(self, items: Sequence[ResponderItem], size: int) -> Iterator[list[Asked]]:
        """At most `size` items at a time; neighbours about one ECG share a prefix."""
        group: list[Asked] = []
        for first in range(0, len(items), size):
            for item in items[first : first + size]:
                previous = group[-1].items[-1] if group else None
                if previous is not None and self.layout == "ecg-first" and _same_ecg(previous, item):
                    group[-1].items.append(item)
                else:
                    question = item.question if self.layout == "question-first" else None
                    prefix, _ = prefix_ids(self.vocabulary, item.features, item.codes, question)
                    group.append(Asked(prefix, soft_values(item.codes), [item]))
            yield group
            group = []

    def _answer_group(self, group: Sequence[Asked], max_new_tokens: int) -> list[str]:
        """Reads each prefix once, repeats its cache for its items, and continues all items side by side.

        Prefixes and prompts are padded on the right; `seen` hides the padding and positions pass over it.
        """
        device, items = self.device, [item for asked in group for item in asked.items]
        owner = torch.tensor([row for row, asked in enumerate(group) for _ in asked.items], device=device)
        length = torch.tensor([len(asked.prefix) for asked in group], device=device)[owner]
        cache, read = self._read(group)
        if read.shape[1]:
            cache.batch_select_indices(owner)
        prompts = [prompt_ids(self.vocabulary, item.question, self.layout) for item in items]
        ids, there = self._pad(prompts)
        last = there.sum(1) - 1
        positions = length[:, None] + torch.arange(ids.shape[1], device=device)
        seen = torch.cat([read[owner], there], 1)
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

    def _read(self, group: Sequence[Asked]) -> tuple[DynamicCache, Tensor]:
        """Runs the prefixes and returns their key-value cache and (B, S) where it holds a token."""
        from transformers import DynamicCache

        cache = DynamicCache()
        ids, there = self._pad([asked.prefix for asked in group])
        if ids.shape[1]:  # a blind model's prefix is empty where the backbone has no token that opens a sequence
            positions = torch.arange(ids.shape[1], device=self.device).expand(len(group), -1)
            self._step(ids, positions, there, cache, pad_values([asked.values for asked in group]))
        return cache, there

    def _step(
        self, ids: Tensor, positions: Tensor, seen: Tensor, cache: DynamicCache, values: Tensor | None = None
    ) -> Tensor:
        """ids (B, S), positions (B, S), seen (B, cached + S) -> hidden states (B, S, hidden); the cache grows by S."""
        embedded = self.model.embed(ids, self.table, None if values is None else values.to(self.device))
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
        packed = pack(prefix, pairs, values=soft_values(item.codes))
        batch = collate([packed], self.vocabulary.pad).to(self.device)
        hidden = self.model.hidden_states(
            batch.ids, batch.positions, batch.mask, values=batch.values, table=self.table
        )[0]
        kept = batch.labels[0] != IGNORED
        losses = self.model.token_losses(hidden[kept], batch.labels[0][kept], table=self.output)
        scores = losses.new_zeros(len(pairs)).index_add_(0, batch.branch[0][kept] - 1, -losses)
        return scores.reshape(len(questions), len(options)).double().cpu().numpy()

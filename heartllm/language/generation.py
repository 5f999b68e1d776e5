"""Answers from a checkpoint: greedy, batched, each ECG read once for all its questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heartllm.language.cache import growing_cache
from heartllm.language.model import ECGLanguageModel
from heartllm.language.packing import IGNORED, Ids, Values, block_mask, collate, pack, pad_values, shares
from heartllm.language.prompts import Layout, answer_ids, prefix_ids, prompt_ids, soft_values
from heartllm.language.vocabulary import ECG


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
    if (a.recording_key, a.features, a.codes is None) != (b.recording_key, b.features, b.codes is None):
        return False
    return a.codes is b.codes or a.codes is None or b.codes is None or np.array_equal(a.codes, b.codes)


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
        """Reads each prefix once; its items go on behind it side by side, as the branches of a packed sequence do."""
        items = [item for asked in group for item in asked.items]
        prompts = [prompt_ids(self.vocabulary, item.question, self.layout) for item in items]
        # What each item is: its row, its branch in it, the position of its next token, and what it has said.
        row = np.array([number for number, asked in enumerate(group) for _ in asked.items])
        branch = np.array([number for asked in group for number, _ in enumerate(asked.items, start=1)])
        position = np.array([len(asked.prefix) for asked in group])[row]
        said: list[list[int]] = [[] for _ in items]
        reading = _Reading(self, group)
        alive, chunk = np.arange(len(items)), prompts
        for _ in range(max_new_tokens):
            states = reading.extend(row[alive], branch[alive], position[alive], chunk)
            token = (states @ self.output.T).argmax(-1).cpu().numpy()
            position[alive] += [len(ids) for ids in chunk]
            going = token != self.vocabulary.eos
            alive, token = alive[going], token[going]
            if not len(alive):
                break
            for item, said_now in zip(alive, token, strict=True):
                said[item].append(int(said_now))
            chunk = list(token[:, None])
        return [self.vocabulary.decode(ids) for ids in said]

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


class _Reading:
    """A key-value cache of some prefixes and of the branches behind each, one row a prefix.

    Attributes:
        keys: (G, cached) int64, the branch of each cached token: 0 in a prefix, -1 where a row is padded.
    """

    def __init__(self, generator: Generator, group: Sequence[Asked]) -> None:
        self.model, self.table, self.pad = generator.model, generator.table, generator.vocabulary.pad
        self.device, self.rows, self.cache = generator.device, len(group), growing_cache()
        self.keys = np.zeros((self.rows, 0), np.int64)
        prefixes = [asked.prefix for asked in group]
        if max(map(len, prefixes)):  # a blind model's prefix is empty where no token opens a sequence
            first = np.zeros(self.rows, np.int64)
            self.extend(np.arange(self.rows), first, first, prefixes, pad_values([asked.values for asked in group]))

    def extend(
        self, row: Ids, branch: Ids, position: Ids, chunks: Sequence[Ids], values: Tensor | None = None
    ) -> Tensor:
        """Reads one chunk of tokens for each of some branches.

        Args:
            row, branch: (I,) where each chunk belongs; items of a row follow each other.
            position: (I,) of each chunk's first token.
            values: behind placeholders, see `ECGLanguageModel.embed`.

        Returns:
            (I, hidden): the state at the last token of each chunk.
        """
        length = np.array([len(ids) for ids in chunks])
        start = np.concatenate([[0], length.cumsum()[:-1]])  # in the line of all chunks
        first = np.concatenate([[0], np.flatnonzero(np.diff(row)) + 1])  # item that opens each row
        start -= np.repeat(start[first], np.diff([*first, len(row)]))  # in its row
        new = np.full((self.rows, int((start + length).max())), -1, np.int64)
        ids, positions = np.full_like(new, self.pad), np.zeros_like(new)
        for item, tokens in enumerate(chunks):
            place = row[item], slice(start[item], start[item] + length[item])
            new[place], ids[place] = branch[item], tokens
            positions[place] = np.arange(position[item], position[item] + length[item])
        states = self._run(new, ids, positions, values)
        self.keys = np.concatenate([self.keys, new], 1)
        return states[torch.from_numpy(row), torch.from_numpy(start + length - 1)]

    def _run(self, new: Ids, ids: Ids, positions: Ids, values: Tensor | None) -> Tensor:
        """(G, S) branches, tokens and positions -> (G, S, hidden); the cache grows by S."""
        device = self.device
        embedded = self.model.embed(
            torch.from_numpy(ids).to(device), self.table, None if values is None else values.to(device)
        )
        bias = None  # prefixes are plain causal, their padding behind them, and that costs half
        if new.max() > 0:
            branch, keys = torch.from_numpy(new).to(device), torch.from_numpy(self.keys).to(device)
            seen = torch.cat([shares(branch, keys), block_mask(branch)[:, 0]], 2)[:, None]
            bias = torch.zeros(seen.shape, dtype=embedded.dtype, device=device)
            bias.masked_fill_(~seen, torch.finfo(embedded.dtype).min)
        output = self.model.body(
            inputs_embeds=embedded,
            position_ids=torch.from_numpy(positions).to(device),
            attention_mask=bias,
            past_key_values=self.cache,
            use_cache=True,
        )
        states: Tensor = output.last_hidden_state
        return states

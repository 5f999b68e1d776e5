"""Where in an ECG an answer comes from, asked in two ways that may disagree.

attention   what the positions that predict the answer look at, layer by layer and head by head. It shows where a model
            *could* take something from, not what it takes (Jain and Wallace, NAACL 2019).
occlusion   how much less likely the answer becomes when a stretch of the ECG is replaced by that of other recordings.
            It shows what the answer depends on, as far as the replacement is itself believable.

Everything here works on input vectors and positions, not on ids: codes and soft tokens are looked at alike.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from heartllm.errors import UsageError
from heartllm.language.generation import Generator
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids, soft_values
from heartllm.language.vocabulary import ECG

Windows = Sequence[tuple[int, int]]  # first and last-plus-one ECG position of each window
Floats = npt.NDArray[np.float64]
NO_WEIGHTS = (
    "Load a causal LM with softmax attention (Llama, Qwen2, Mistral, GPT-2, ...) that runs with "
    'attn_implementation="eager"; occlusion needs no attention weights.'
)


@dataclass(frozen=True)
class Scene:
    """One ECG with questions and answers, as input vectors of the language model.

    Attributes:
        prefix: (P, hidden) all that stands before the branches, ECG included.
        ecg: first and last-plus-one position of the ECG in the prefix.
        branches: each (S, hidden): the rest of the prompt, and the answer without its last token, which predicts
            nothing.
        answers: each (A,) int64: the answer's tokens with the end token; the branch's last A positions predict them.
    """

    prefix: Tensor
    ecg: tuple[int, int]
    branches: tuple[Tensor, ...]
    answers: tuple[Tensor, ...]

    def with_ecg(self, vectors: Tensor) -> Scene:
        """The same with another ECG (N, hidden) of the same length."""
        prefix = self.prefix.clone()
        prefix[self.ecg[0] : self.ecg[1]] = vectors
        return replace(self, prefix=prefix)


def ecg_vectors(generator: Generator, ecgs: Sequence[ECG]) -> Tensor:
    """ECGs as a front-end encodes them, codes (N,) or values (N, width) each -> their input vectors (E, N, hidden).

    Raises:
        UsageError: if they differ in length: a window would be another stretch of time in each.
    """
    ids = [generator.vocabulary.ecg(ecg)[1:-1] for ecg in ecgs]
    if len({len(row) for row in ids}) > 1:
        raise UsageError(
            f"ECGs of {min(map(len, ids))} to {max(map(len, ids))} positions cannot be laid over each other",
            remedy="Use a front-end whose ECGs all have the same length.",
        )
    values = [soft_values(ecg) for ecg in ecgs]
    soft = None if values[0] is None else torch.from_numpy(np.stack(values)).to(generator.device)  # type: ignore[arg-type]
    with torch.inference_mode():
        return generator.model.embed(torch.from_numpy(np.stack(ids)).to(generator.device), generator.table, soft)


def scenes(
    generator: Generator, ecg: Tensor, features: str, asked: Sequence[tuple[str | None, str]]
) -> Iterator[tuple[Scene, list[int]]]:
    """The scenes in which `asked` fit, and which of them each holds: one for all where the ECG comes first.

    Args:
        ecg: (N, hidden) input vectors of one ECG.
        features: patient features as text, may be empty.
        asked: (question or None for a report, answer) pairs.
    """
    vocabulary, table = generator.vocabulary, generator.table
    together = generator.layout == "ecg-first"
    groups = [list(range(len(asked)))] if together else [[index] for index in range(len(asked))]
    width = vocabulary.width  # placeholders stand where the ECG's vectors come
    blank: ECG = np.zeros(len(ecg), np.int64) if width is None else np.zeros((len(ecg), width), np.float32)
    for group in groups:
        question = None if together else asked[group[0]][0]
        ids, place = prefix_ids(vocabulary, features, blank, question)
        prefix = F.embedding(torch.from_numpy(ids).to(generator.device), table).clone()
        prefix[place[0] : place[1]] = ecg
        branches, answers = [], []
        for index in group:
            prompt = prompt_ids(vocabulary, asked[index][0], generator.layout)
            answer = torch.from_numpy(answer_ids(vocabulary, asked[index][1])).to(generator.device)
            both = torch.cat([torch.from_numpy(prompt).to(generator.device), answer[:-1]])
            branches.append(F.embedding(both, table))
            answers.append(answer)
        yield Scene(prefix, place, tuple(branches), tuple(answers)), group


@dataclass(frozen=True)
class Looked:
    """The attention of one answer.

    Attributes:
        heads: (layers, heads, N) of the positions that predict the answer (mean over its tokens, the end token left
            out) on each ECG position. Over all positions of the sequence these rows sum to 1.
        rollout: (N,) attention rollout (Abnar and Zuidema, ACL 2020): heads averaged, half of each layer's flow along
            the residual stream, layers multiplied.
    """

    heads: Floats
    rollout: Floats

    @property
    def mean(self) -> Floats:
        """(N,) over layers and heads."""
        return self.heads.mean(axis=(0, 1))

    @property
    def share(self) -> Floats:
        """(layers, heads) of the attention that falls on the ECG; the rest falls on the words."""
        return self.heads.sum(-1)


@contextmanager
def eager_attention(body: Any) -> Iterator[None]:
    """Switches to the kernel that computes attention weights, and back.

    Raises:
        UsageError: if the backbone has no such kernel.
    """
    config = body.config
    before = getattr(config, "_attn_implementation", None)

    def switch(kernel: str) -> None:
        if hasattr(body, "set_attn_implementation"):
            body.set_attn_implementation(kernel)
        else:  # transformers before 4.52
            config._attn_implementation = kernel

    if before is None:
        raise UsageError(f"a {config.model_type!r} model has no attention to show", remedy=NO_WEIGHTS)
    try:
        switch("eager")
    except (ValueError, NotImplementedError) as error:
        raise UsageError(
            f"a {config.model_type!r} model has no kernel that gives attention weights ({str(error).splitlines()[0]})",
            remedy=NO_WEIGHTS,
        ) from None
    try:
        yield
    finally:
        switch(before)


@torch.inference_mode()
def attention(generator: Generator, scene: Scene) -> list[Looked]:
    """What each answer of a scene looks at.

    Raises:
        UsageError: for a model without attention, or whose kernel gives no weights.
    """
    body = generator.model.body
    with eager_attention(body):
        return [
            _look(body, scene, branch, len(answer))
            for branch, answer in zip(scene.branches, scene.answers, strict=True)
        ]


def _look(body: Any, scene: Scene, branch: Tensor, answer: int) -> Looked:
    embedded = torch.cat([scene.prefix, branch])[None]
    try:
        weights = getattr(
            body(inputs_embeds=embedded, use_cache=False, output_attentions=True, return_dict=True), "attentions", None
        )
    except TypeError:  # state space models know no such argument
        weights = None
    if not weights or any(layer is None for layer in weights):
        raise UsageError(f"a {body.config.model_type!r} model gives no attention weights", remedy=NO_WEIGHTS)
    length = embedded.shape[1]
    rows = slice(length - answer, max(length - 1, length - answer + 1))  # not the row that predicts the end token
    columns = slice(*scene.ecg)
    flow = torch.eye(length, device=embedded.device)
    for layer in weights:
        flow = (0.5 * layer[0].float().mean(0) + 0.5 * torch.eye(length, device=flow.device)) @ flow
    heads = torch.stack([layer[0, :, rows, columns].float().mean(1) for layer in weights])
    return Looked(heads.double().cpu().numpy(), flow[rows, columns].mean(0).double().cpu().numpy())


def sliding_windows(positions: int, width: int, stride: int = 1) -> list[tuple[int, int]]:
    """Windows of `width` positions every `stride`; the last one ends at the end.

    Raises:
        UsageError: for a width or stride below 1, or a window wider than the ECG.
    """
    if not 1 <= width <= positions or stride < 1:
        raise UsageError(
            f"windows of {width} every {stride} do not fit {positions} positions",
            where="width",
            remedy="Take a width from 1 to the ECG's positions and a stride of 1 or more.",
        )
    last = positions - width
    starts = sorted({*range(0, last + 1, stride), last})
    return [(start, start + width) for start in starts]


@torch.inference_mode()
def occlusion(generator: Generator, scene: Scene, others: Tensor, windows: Windows, *, batch: int = 48) -> Floats:
    """Loss of log likelihood (W, D, Q) in nats of each answer when a window is replaced by another ECG's.

    The positions before a window are read once and kept as keys and values; each replacement is read from its window
    on, and all answers are branches behind it.

    Args:
        others: (D, N, hidden) input vectors of D replacements of the whole ECG; a window takes its part of them.
        windows: W windows in ECG positions.
        batch: replacements read side by side.
    """
    first, past = scene.ecg
    if others.shape[1] != past - first:
        raise UsageError(
            f"replacements of {others.shape[1]} positions do not fit an ECG of {past - first}",
            remedy="Encode them with the same front-end.",
        )
    reader = _Reader(generator, scene)
    whole = reader.likelihoods(scene.prefix[None, first:], first)[0]
    found = np.zeros((len(windows), len(others), len(scene.branches)))
    order = sorted(range(len(windows)), key=lambda index: windows[index])
    together = max(1, batch // len(others))
    for start in range(0, len(order), together):
        group = order[start : start + together]
        begin = first + windows[group[0]][0]
        rows = scene.prefix[begin:].repeat(len(group), len(others), 1, 1)  # (windows, D, P - begin, hidden)
        for row, index in enumerate(group):
            left, right = windows[index]
            rows[row, :, first + left - begin : first + right - begin] = others[:, left:right]
        scores = reader.likelihoods(rows.flatten(0, 1), begin)
        found[group] = (whole - scores).reshape(len(group), len(others), -1)
    return found


class _Reader:
    """Log likelihoods of a scene's answers behind prefixes that share their beginning."""

    def __init__(self, generator: Generator, scene: Scene) -> None:
        from transformers import DynamicCache

        self.generator, self.scene = generator, scene
        self.cache = DynamicCache()
        generator.model.body(inputs_embeds=scene.prefix[None], past_key_values=self.cache, use_cache=True)
        lengths = [len(branch) for branch in scene.branches]
        self.owner = torch.repeat_interleave(torch.arange(1, len(lengths) + 1), torch.tensor(lengths))
        inside = torch.cat([torch.arange(length) for length in lengths])
        self.positions = len(scene.prefix) + inside
        starts = np.cumsum([0, *lengths[:-1]])
        self.kept = torch.cat(
            [
                torch.arange(start + length - len(answer), start + length)
                for start, length, answer in zip(starts, lengths, scene.answers, strict=True)
            ]
        )
        self.labels = torch.cat(scene.answers)
        self.question = torch.repeat_interleave(
            torch.arange(len(lengths)), torch.tensor([len(answer) for answer in scene.answers])
        ).to(self.labels.device)

    def likelihoods(self, rest: Tensor, begin: int) -> Floats:
        """(B, P - begin, hidden) ends of prefixes -> (B, Q) nats; all before position `begin` is the scene's own."""
        size, length = rest.shape[:2]
        cache = copy.deepcopy(self.cache)
        cache.crop(begin - len(self.scene.prefix))  # negative: what to take off the end
        cache.batch_repeat_interleave(size)
        branches = torch.cat(self.scene.branches)
        embedded = torch.cat([rest, branches.expand(size, *branches.shape)], 1)
        owner = torch.cat([torch.zeros(length, dtype=torch.long), self.owner])
        positions = torch.cat([torch.arange(begin, begin + length), self.positions]).to(embedded.device)
        sees = (owner[None] == 0) | (owner[None] == owner[:, None])
        sees = sees & torch.ones_like(sees).tril()
        sees = torch.cat([torch.ones(len(owner), begin, dtype=torch.bool), sees], 1).to(embedded.device)
        bias = torch.zeros(sees.shape, dtype=embedded.dtype, device=embedded.device)
        bias.masked_fill_(~sees, torch.finfo(embedded.dtype).min)
        states = self.generator.model.body(
            inputs_embeds=embedded,
            position_ids=positions.expand(size, -1),
            attention_mask=bias.expand(size, 1, *bias.shape),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, length:][:, self.kept.to(embedded.device)]
        labels = self.labels.expand(size, -1)
        losses = self.generator.model.token_losses(
            states.flatten(0, 1), labels.flatten(), table=self.generator.output
        ).reshape(size, -1)
        total = losses.new_zeros(size, len(self.scene.branches)).index_add_(1, self.question, -losses)
        result: Floats = total.double().cpu().numpy()
        return result


def by_position(drops: Floats, windows: Windows, positions: int) -> Floats:
    """(W, ...) of windows -> (N, ...): at each position the mean over the windows that hold it (0 where none does)."""
    total, count = np.zeros((positions, *drops.shape[1:])), np.zeros(positions)
    for drop, (left, right) in zip(drops, windows, strict=True):
        total[left:right] += drop
        count[left:right] += 1
    return total / np.maximum(count, 1).reshape(-1, *[1] * (drops.ndim - 1))

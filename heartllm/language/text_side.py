"""The text side of front-ends that are trained against text: a frozen language model as rows and as an encoder.

Normally that of the *blind* control: the same language model on the same texts, which never saw an ECG.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from heartllm.language.model import ECGLanguageModel


class TextSide:
    """A language model that only reads text. `heartllm.checkpoint.load_text_side` reads it from a checkpoint.

    Attributes:
        rows: (V, hidden) float32, the text rows of its embedding table.
        fingerprint: hash of the checkpoint.
    """

    def __init__(self, model: ECGLanguageModel, fingerprint: str = "") -> None:
        self.model, self.vocabulary, self.fingerprint = (
            model.eval().requires_grad_(False),
            model.vocabulary,
            fingerprint,
        )
        self.rows: Tensor = model.backbone.get_input_embeddings().weight.detach().float()

    @property
    def hidden(self) -> int:
        """Width of the rows and of `embed`."""
        return int(self.rows.shape[1])

    @torch.no_grad()
    def embed(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """(n, hidden) float32: the mean over each text's tokens of the states after the last layer and its norm.

        The token that opens every sequence is read, but not counted. An empty text gets zeros.
        """
        device = self.rows.device
        ids = [self.vocabulary.text(text) for text in texts]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        head, found = self.vocabulary.bos, torch.zeros(len(ids), self.hidden, device=device)
        for first in range(0, len(order), batch):
            chosen = [index for index in order[first : first + batch] if ids[index]]
            if not chosen:
                continue
            longest = len(ids[chosen[-1]])
            padded = torch.tensor(
                [head + ids[index] + [self.vocabulary.pad] * (longest - len(ids[index])) for index in chosen]
            )
            counted = torch.arange(longest) < torch.tensor([[len(ids[index])] for index in chosen])
            embedded = F.embedding(padded.to(device), self.model.backbone.get_input_embeddings().weight)
            states = self.model.body(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, len(head) :].float()
            weight = counted.to(states)[..., None]  # padding stands behind: causal attention never looks at it
            found[chosen] = (states * weight).sum(1) / weight.sum(1)
        return found

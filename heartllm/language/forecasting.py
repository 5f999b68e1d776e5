"""ECG codes carried on by the language model: which come next, and how likely those were that did.

The prompt is that of forecasting without patient features: <bos>, the start mark, codes. Only rows of codes are looked
at: a text token, or the end mark, can neither follow nor take a share of the probability.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from heartllm.language.generation import Generator
from heartllm.language.packing import Ids
from heartllm.language.prompts import prefix_ids


@torch.inference_mode()
def continue_codes(
    generator: Generator, codes: Ids, steps: int, draws: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.int64]:
    """Codes (B, K) -> the `steps` codes that follow, (B, steps); each is read as if it had come.

    Args:
        draws: (B, steps) in [0, 1). Each chooses a code by the model's distribution at temperature 1 (inverse of its
            cumulative sum), so a row's continuation depends on its own draws alone. None takes the likeliest code.

    Raises:
        CheckpointError: where the model does not read codes.
    """
    from transformers import DynamicCache

    cache, rows = DynamicCache(), _code_rows(generator)
    found = torch.zeros(len(codes), steps, dtype=torch.int64, device=generator.device)
    new = _prompt(generator, codes)
    for step in range(steps):
        embedded = F.embedding(new, generator.table)
        output = generator.model.body(inputs_embeds=embedded, past_key_values=cache, use_cache=True)
        logits = output.last_hidden_state[:, -1] @ rows.T
        if draws is None:
            picked = logits.argmax(-1)
        else:
            share = torch.softmax(logits.double(), -1).cumsum(-1)
            drawn = torch.from_numpy(draws[:, step]).to(share)[:, None].contiguous()
            picked = torch.searchsorted(share, drawn, right=True)[:, 0].clamp(max=len(rows) - 1)
        found[:, step] = picked
        new = picked[:, None] + generator.vocabulary.first_code
    return found.cpu().numpy()


@torch.inference_mode()
def code_losses(generator: Generator, codes: Ids, first: int) -> npt.NDArray[np.float64]:
    """Codes (B, N) -> (B, N - first) nats: of each code from `first` on, given all true ones before it.

    Raises:
        CheckpointError: where the model does not read codes.
    """
    ids = _prompt(generator, codes)
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    hidden = generator.model.hidden_states(ids, places, None, table=generator.table)
    wanted = ids.shape[1] - codes.shape[1] + first  # place of the first code that is asked for
    logits = (hidden[:, wanted - 1 : -1] @ _code_rows(generator).T).double()
    labels = ids[:, wanted:] - generator.vocabulary.first_code
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none").cpu().numpy()


def _code_rows(generator: Generator) -> Tensor:
    """(codes, hidden): output rows of the codes."""
    return generator.output[generator.vocabulary.first_code : generator.vocabulary.size]


def _prompt(generator: Generator, codes: Ids) -> Tensor:
    """Codes (B, K) -> ids (B, P) that open a sequence and stay open: no end mark."""
    rows = [prefix_ids(generator.vocabulary, "", row)[0][:-1] for row in codes]
    return torch.from_numpy(np.stack(rows)).to(generator.device)

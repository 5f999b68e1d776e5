"""One vocabulary for text and ECG: the text tokenizer's rows, then `<|start_ecg|>`, `<|end_ecg|>`, then one row a code.

0 ... base-1          text (whatever rows the backbone has, also those its tokenizer does not use)
base, base+1          <|start_ecg|>  <|end_ecg|>
base+2+c              code c, written <ecg_0000> when exported

A continuous front-end has no codes. It takes the row of one placeholder instead, code 0, which stands wherever the
model's input is computed from the ECG's values (`ECGLanguageModel.embed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import CheckpointError, UsageError

START, END = "<|start_ecg|>", "<|end_ecg|>"
PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
NEW_SPECIALS = 2
PLACEHOLDERS = 1
ECG = npt.NDArray[Any]  # codes (N,) or values (N, width) of one ECG; (E, N) or (E, N, width) of several


def code_token(code: int) -> str:
    """The text form of a code's token after export."""
    return f"<ecg_{code:04d}>"


def refuse_ecg_tokens(tokenizer: Any, codes: int) -> None:
    """Refuses a text tokenizer that holds tokens of the names that ours have after export: text could then spell ECGs.

    Raises:
        UsageError: naming one of them.
    """
    known = tokenizer.get_vocab()
    names = [START, END, *(code_token(code) for code in range(codes))]
    if found := next((name for name in names if name in known), None):
        raise UsageError(
            f"the backbone's tokenizer already holds ECG tokens ({found})",
            where="language.backbone",
            remedy="Name the backbone as it was before `heartllm export`; to train on, give the checkpoint itself.",
        )


@dataclass(frozen=True)
class Vocabulary:
    """Text tokenizer and the ids of what is added to it.

    Attributes:
        tokenizer: a fast Hugging Face tokenizer.
        base: rows of the text part, the backbone's embedding size before it grew.
        codes: number of ECG codes.
        width: numbers a position of a continuous front-end, whose only code is the placeholder; None for codes.
        describe: what its front-end says of an ECG's values, in words before the ECG.
    """

    tokenizer: Any
    base: int
    codes: int
    width: int | None = None
    describe: Callable[[ECG], str] | None = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Rows of the grown embedding."""
        return self.base + NEW_SPECIALS + self.codes

    @property
    def start(self) -> int:
        return self.base

    @property
    def end(self) -> int:
        return self.base + 1

    @property
    def first_code(self) -> int:
        return self.base + NEW_SPECIALS

    @property
    def eos(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    @property
    def bos(self) -> list[int]:
        """The tokens that open every sequence: one, or none where the backbone has no such token."""
        return [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]

    def text(self, text: str) -> list[int]:
        """Text -> ids, without specials."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def ecg(self, codes: ECG) -> npt.NDArray[np.int64]:
        """Codes (N,) or values (N, width) of one ECG -> ids (N + 2,) between the start and end tokens.

        Codes of -1 at the end, which fill up short ECGs, are left out. What the front-end says of an ECG comes first.

        Raises:
            CheckpointError: if a code lies outside this vocabulary, or values come where it has codes, or the reverse.
        """
        given = codes.shape[-1] if np.issubdtype(codes.dtype, np.floating) else None
        if given != self.width:
            held, wanted = (f"values of width {n}" if n is not None else "codes" for n in (given, self.width))
            raise CheckpointError(
                f"the ECG comes as {held}, but the language model takes {wanted}",
                remedy="Use the front-end that this checkpoint was trained with.",
            )
        if self.width is not None:
            said = self.describe(codes) if self.describe is not None else ""
            words = self.text(said + "\n") if said else []
            return np.array([*words, self.start, *[self.first_code] * len(codes), self.end], np.int64)
        values = np.asarray(codes, dtype=np.int64)
        values = values[: int(np.max(np.flatnonzero(values != -1), initial=-1)) + 1]
        if values.size and (values.min() < 0 or values.max() >= self.codes):
            raise CheckpointError(
                f"an ECG code of {int(values.max())} does not fit a vocabulary of {self.codes} codes",
                remedy="Use the codec that this checkpoint was trained with.",
            )
        return np.concatenate([[self.start], values + self.first_code, [self.end]])

    def decode(self, ids: Sequence[int]) -> str:
        """Generated ids -> text; ECG ids, which have no text form before export, are left out."""
        return str(self.tokenizer.decode([i for i in ids if i < self.base], skip_special_tokens=True)).strip()


def train_text_tokenizer(corpus: Iterable[str], size: int) -> Any:
    """A byte-level BPE of at most `size` rows, trained on `corpus`, for backbones that start from nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # digits apart, so that ages and rates share their tokens
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)


def load_text_tokenizer(folder: Path) -> Any:
    """Reads the text tokenizer of a checkpoint from its files alone (no hub, no remote code)."""
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises what it meets, bare exceptions too
        raise CheckpointError(
            f"the text tokenizer cannot be read ({error})", where=folder, remedy="Fetch the checkpoint again."
        ) from None

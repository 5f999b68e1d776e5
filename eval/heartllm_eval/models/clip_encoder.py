"""An aligned ECG encoder (`heartllm.frontends.clip`) as the space in which the nearest training ECG is looked for.

With the text side that it was aligned with, reports are looked for themselves: the training report whose text is
nearest to the ECG, as in MERL (ICML 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from heartllm.errors import UsageError

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

Floats = npt.NDArray[np.float64]


class ClipEncoder:
    """`encoder=FOLDER` (a checkpoint whose front-end is CLIP) and, for reports, `text=CHECKPOINT`.

    Attributes:
        name: of the space; it holds the hash of the encoder.
        width: of the vectors.
        reads_text: whether `texts` may be called.

    Raises:
        CheckpointError: if a folder is damaged, or the text side another one than the encoder's.
        UsageError: if the front-end is of another kind.
    """

    def __init__(self, encoder: str, text: str = "") -> None:
        from heartllm.checkpoint import load_frontend, load_text_side, verify
        from heartllm.frontends.clip import Clip

        folder = Path(encoder)
        verify(folder)
        front, digest = load_frontend(folder)
        if not isinstance(front, Clip):
            raise UsageError(
                f"{folder}: its front-end is {front.kind!r}",
                where="--model_args encoder",
                remedy='Name a folder that `heartllm tokenizer` made of a recipe with [frontend] kind = "clip".',
            )
        self._front = front
        self.name, self.width = f"clip-{digest[:16]}", front.config.embedding
        self._text = load_text_side(Path(text)) if text else None
        if self._text is not None:
            front.check_text(self._text.fingerprint)

    @property
    def reads_text(self) -> bool:
        return self._text is not None

    def vector(self, recording: Recording) -> Floats:
        """(width,) of norm 1."""
        import torch

        found: Floats = self._front.embed(torch.from_numpy(recording.signal)[None])[0].double().numpy()
        return found

    def texts(self, texts: Sequence[str]) -> Floats:
        """(n, width) of norm 1."""
        import torch

        assert self._text is not None, "no text side"
        with torch.no_grad():
            found: Floats = self._front.embed_text(self._text.embed(texts)).double().numpy()
        return found

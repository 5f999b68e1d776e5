"""`--perturb`: the recordings that are asked about, shifted in a controlled way before any model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heartllm_eval.schema import digest

if TYPE_CHECKING:  # what shifts is imported where it is used: naming models and suites needs no numpy
    from heartllm.ecg.perturb import Perturbation
    from heartllm.ecg.recording import Recording


@dataclass(frozen=True)
class Shift:
    """What is done to recordings.

    Attributes:
        steps: in this order.
        seed: of all noise.
    """

    steps: tuple[Perturbation, ...] = ()
    seed: int = 0

    @classmethod
    def of(cls, texts: Sequence[str], seed: int = 0) -> Shift:
        """Reads "noise=10dB" and the like.

        Raises:
            UsageError: for what `heartllm.ecg.perturb` does not know.
        """
        from heartllm.ecg.perturb import parse

        return cls(tuple(map(parse, texts)), seed)

    @property
    def texts(self) -> tuple[str, ...]:
        """The steps in their canonical form: what records and keys hold."""
        return tuple(map(str, self.steps))

    def __bool__(self) -> bool:
        return bool(self.steps)

    def __call__(self, recording: Recording) -> Recording:
        from heartllm.ecg.perturb import perturb

        return perturb(recording, self.steps, self.seed)

    def mark(self, content: str, name: str, record_id: str) -> str:
        """The hash of a shifted recording, from its files'; noise also depends on what the recording is called."""
        from heartllm.ecg.perturb import VERSION

        return digest(content, name, record_id, str(VERSION), str(self.seed), *self.texts, length=64)

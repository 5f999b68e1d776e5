"""The vectors of figure 1: where ECGs and texts lie in the space of the language model, read from a checkpoint.

Two levels, because "embedding" may mean either and they answer different questions:

    input   what enters the first layer: the vectors at ECG positions, and the rows of the text tokens of the reports.
            Distinct vectors only, for a code or word that occurs often would be its own nearest neighbour. This is the
            "shared vocabulary" of the paper.
    state   what the language model makes of them: the last hidden states of an ECG alone, averaged over its positions,
            and of its report alone, averaged over the report's tokens. One vector an ECG and one a report, so ECGs can
            look for their reports. Neither sees the other, the patient's features or a question.

The untrained control is the same architecture with fresh weights (on a pretrained backbone: fresh ECG rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heartllm.errors import CheckpointError, DataError
from heartllm_eval.figures.embedding_measures import Cloud

if TYPE_CHECKING:
    from heartllm.responder import Responder

POSITIONS = 4  # of each ECG, drawn for the level "input"


@dataclass(frozen=True)
class Shown:
    """One recording as a checkpoint's front-end gives it, with its report.

    Attributes:
        patient: who must not be split between folds.
        codes: (N,) codes, or (N, width) values of a continuous front-end.
    """

    patient: str
    codes: npt.NDArray[Any]
    report: str


def untrained(responder: Responder, seed: int = 0) -> Responder:
    """The same front-end and architecture before any training of the language model."""
    import torch

    from heartllm.checkpoint import new_language
    from heartllm.language.generation import Generator
    from heartllm.responder import Responder as Loaded

    torch.manual_seed(seed)
    tokenizer = responder.generator.vocabulary.tokenizer
    model = new_language(responder.config, tokenizer, seed, front=responder.front)
    generator = Generator(model.to(responder.generator.device), responder.config.layout)
    return Loaded(responder.front, generator, responder.config, responder.fingerprint, responder.codec_hash)


def clouds(responder: Responder, shown: Sequence[Shown], *, seed: int = 0) -> dict[str, Cloud]:
    """The clouds of both levels; pairs at the level "state".

    Raises:
        CheckpointError: for a checkpoint that was trained without ECGs.
        DataError: for too few recordings.
    """
    if responder.blind:
        raise CheckpointError(
            "was trained without ECGs and has no place for them",
            where="embeddings",
            remedy="Name the checkpoint itself, not its blind control.",
        )
    if not shown:
        raise DataError("no recording has a report", where="embeddings", remedy="Name a dataset with reports.")
    reports = list(dict.fromkeys(item.report for item in shown))
    first_patient = {report: item.patient for item in reversed(shown) for report in [item.report]}
    rows = _Rows(responder)
    entering, leaving = zip(*(rows.ecg(item.codes) for item in shown), strict=True)
    said = np.stack([rows.text(report) for report in reports])
    ecg, patients = _drawn(entering, [item.patient for item in shown], seed)
    tokens = sorted({token for report in reports for token in rows.vocabulary.text(" " + report)})
    words, kept = np.unique(rows.table[tokens], axis=0, return_index=True)
    return {
        "input": Cloud(ecg, words, patients, tuple(f"token {tokens[i]}" for i in kept)),
        "state": Cloud(
            np.stack(leaving),
            said,
            tuple(item.patient for item in shown),
            tuple(first_patient[report] for report in reports),
            np.array([reports.index(item.report) for item in shown], np.int64),
        ),
    }


def _drawn(
    entering: Sequence[npt.NDArray[Any]], patients: Sequence[str], seed: int
) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Distinct vectors from `POSITIONS` random positions of each ECG, and the first patient with each."""
    generator = np.random.default_rng(seed)
    places = [generator.choice(len(part), min(POSITIONS, len(part)), replace=False) for part in entering]
    vectors = np.concatenate([part[place] for part, place in zip(entering, places, strict=True)])
    owners = [patient for patient, place in zip(patients, places, strict=True) for _ in place]
    distinct, first = np.unique(vectors, axis=0, return_index=True)
    return distinct, tuple(owners[i] for i in first)


class _Rows:
    """Reads vectors out of a responder's language model, one sequence at a time."""

    def __init__(self, responder: Responder) -> None:
        self.generator = responder.generator
        self.vocabulary = self.generator.vocabulary
        self.table = self.generator.table.float().cpu().numpy()

    def ecg(self, codes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """One ECG -> (N, hidden) what enters at its positions, and (hidden,) the mean of its last hidden states."""
        from heartllm.language.prompts import prefix_ids, soft_values

        ids, (first, last) = prefix_ids(self.vocabulary, "", codes)
        return self._run(ids, first, last, soft_values(codes))

    def text(self, text: str) -> npt.NDArray[Any]:
        """(hidden,) the mean of a text's last hidden states."""
        ids = np.array([*self.vocabulary.bos, *self.vocabulary.text(" " + text)], np.int64)
        return self._run(ids, len(self.vocabulary.bos), len(ids))[1]

    def _run(
        self, ids: npt.NDArray[np.int64], first: int, last: int, values: npt.NDArray[np.float32] | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        import torch

        device, model = self.generator.device, self.generator.model
        with torch.inference_mode():
            soft = None if values is None else torch.from_numpy(values)[None].to(device)
            embedded = model.embed(torch.from_numpy(ids)[None].to(device), self.generator.table, soft)
            states = model.body(inputs_embeds=embedded, use_cache=False).last_hidden_state
            one, two = embedded[0, first:last].float(), states[0, first:last].float().mean(0)
        return one.cpu().numpy(), two.cpu().numpy()

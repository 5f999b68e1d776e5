"""Where in an ECG an answer comes from, for the ECGs on a page: occlusion and attention, position by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from heartllm.errors import UsageError
from heartllm_eval.page.gather import Task
from heartllm_eval.schema import Request

if TYPE_CHECKING:
    from heartllm.ecg.recording import Recording

WINDOW = 8  # positions that are replaced at once: 256 ms of the codec's 32
FEWEST = 4  # recordings that it takes: each borrows the beats of two others
Bar = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


@contextmanager
def no_bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Shows nothing."""
    yield lambda: None


@dataclass(frozen=True)
class Shade:
    """The maps of one answer.

    Attributes:
        occlusion: (N,) loss of log likelihood of the answer in nats when the window around a position holds another
            patient's beats; 0 where the answer becomes no less likely.
        attention: (N,) share of the attention that falls on a position while the answer is said, mean over heads.
    """

    occlusion: npt.NDArray[np.float64]
    attention: npt.NDArray[np.float64]

    @property
    def most(self) -> tuple[float, float]:
        """The largest of each: what 255 in `packed` stands for."""
        return float(self.occlusion.max(initial=0.0)), float(self.attention.max(initial=0.0))

    def packed(self) -> bytes:
        """A byte a position: occlusion, then attention, each as a share of its largest."""
        parts = zip((self.occlusion, self.attention), self.most, strict=True)
        shares = [part / most if most > 0 else np.zeros_like(part) for part, most in parts]
        return np.rint(255 * np.concatenate(shares)).astype(np.uint8).tobytes()


def shades(
    tasks: Sequence[Task],
    recordings: Mapping[tuple[str, str], Recording],
    checkpoint: Path,
    *,
    answered_by: str | None,
    warn: Callable[[str], None],
    bar: Bar = no_bar,
) -> dict[tuple[str, str], Shade]:
    """(task, request id) -> the maps of what the first system answered about one of `recordings`.

    Args:
        answered_by: fingerprint of the first system's model as its run recorded it.

    Raises:
        UsageError: for fewer than `FEWEST` recordings, a checkpoint that sees no ECG, or one without attention.
        CheckpointError: for a damaged one.
    """
    from heartllm.responder import Responder
    from heartllm_eval.figures.attention_maps import ATTENTION, BEATS, Lenders, Settings, look

    if len(recordings) < FEWEST:
        remedy = f"Give --ecgs {FEWEST} or more."
        what = f"takes {FEWEST} ECGs on the page, and there are {len(recordings)}"
        raise UsageError(what, where="--shade", remedy=remedy)
    responder = Responder.load(checkpoint, threads=1)
    if answered_by != responder.fingerprint:
        warn("--shade: the first run's answers are not known to be this checkpoint's; the shading is its view of them")
    asked = {key: list(_answered(tasks, key)) for key in recordings}
    patients = {key: rows[0][1].cluster or str(key) for key, rows in asked.items() if rows}
    lenders = Lenders([(patient, recordings[key]) for key, patient in patients.items()])
    settings, rng = Settings(width=WINDOW, stride=WINDOW), np.random.default_rng(0)
    found: dict[tuple[str, str], Shade] = {}
    with bar("shading", len(patients)) as advance:
        for key, patient in patients.items():
            for features in dict.fromkeys(request.background for _, request, _ in asked[key]):
                rows = [row for row in asked[key] if row[1].background == features]
                pairs = [(request.question or None, answer) for _, request, answer in rows]
                maps = look(responder, recordings[key], patient, features, pairs, lenders, settings, rng)
                for number, (task, request, _) in enumerate(rows):
                    occlusion = maps.scores[BEATS][number].clip(min=0.0)
                    found[task, request.id] = Shade(occlusion, maps.scores[ATTENTION][number])
            advance()
    return found


def _answered(tasks: Sequence[Task], key: tuple[str, str]) -> Iterator[tuple[str, Request, str]]:
    """Task, request and the first system's answer, of what was asked about this recording alone."""
    for task in tasks:
        said = task.sides[0].predictions[task.name]
        for request in task.requests:
            prediction = said.get(request.id)
            if (request.dataset, *request.record_ids) == key and prediction is not None and prediction.text.strip():
                yield task.name, request, prediction.text

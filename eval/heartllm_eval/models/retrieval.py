"""The nearest training ECG's answer or report: a control that looks at the ECG, but learns nothing.

Nearest is the smallest Euclidean distance between measurements (`heartllm.ecg.summary`): rhythm (rate, spread of RR,
early beats, a P wave found), intervals (PR, QRS, QTc, sine and cosine of the axis), and the amplitudes of P, Q, R, S,
ST and T in the twelve leads. Each measurement is standardised by the training recordings, cut off at 4 standard
deviations, and set to 0 (their mean) where it is missing; each of the eight groups weighs the same, whatever its size.

A question is answered as the nearest training ECG was that was asked the same (template and attributes; where that was
never asked, the same template, then the same type); with `k` above 1 the most frequent answer of the k nearest, ties to
the nearer. A report is the nearest training ECG's.

With `encoder=FOLDER` nearest is the smallest angle between embeddings of an aligned encoder (`heartllm.frontends.clip`)
instead, which has learned; and with `text=CHECKPOINT` too, a report is the training report whose own embedding is
nearest to the ECG's.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from heartllm.data.records import ANSWER_SEPARATOR
from heartllm.errors import DataError, UsageError
from heartllm.untrusted import read_array
from heartllm_eval.models.base import Context, Task
from heartllm_eval.models.clip_encoder import ClipEncoder
from heartllm_eval.models.controls import gold_text
from heartllm_eval.models.prompting import cache_file, failed, number
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.suite import Reader

Floats = npt.NDArray[np.float64]
GROUP_SIZES = (4, 5, 12, 12, 12, 12, 12, 12)  # rhythm, intervals, P, Q, R, S, ST, T
CUT = 4.0  # standard deviations beyond which a measurement is an outlier, and no nearer or farther
Recording = tuple[str, str]  # dataset and record id


class Retrieval:
    """`--model retrieval [--model_args k=1,encoder=FOLDER,text=CHECKPOINT]`."""

    def __init__(self, context: Context, *, k: str = "1", encoder: str = "", text: str = "") -> None:
        self.context, self.k = context, int(number("k", k, low=1, whole=True))
        if text and not encoder:
            remedy = "Add encoder=FOLDER, the encoder that it was aligned with."
            raise UsageError("text without an encoder", where="--model_args text", remedy=remedy)
        self.encoder = ClipEncoder(encoder, text) if encoder else None
        self._reader = Reader()
        self._vectors: dict[tuple[Recording, Reader], Floats | DataError] = {}

    def describe(self) -> dict[str, Any]:
        """The rule and the version of its measurements."""
        from heartllm.ecg.summary import VERSION

        if self.encoder is not None:
            reports = "nearest training text" if self.encoder.reads_text else "nearest training ECG's"
            rule = "nearest embedding > same question > template > type"
            return {"rule": rule, "reports": reports, "k": self.k, "encoder": self.encoder.name}
        return {"rule": "nearest measurements > same question > template > type", "k": self.k, "measurements": VERSION}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        """Measures the training recordings once a run, then looks up each request's nearest."""
        self._reader = task.reader
        by_text = task.kind == "report" and self.encoder is not None and self.encoder.reads_text
        index: _Texts | _Index = (_Texts if by_text else _Index)(self, task.training())
        for request in requests:
            try:
                yield Prediction(request.id, index.answer(request, self.k))
            except DataError as error:
                yield Prediction(request.id, "", error=failed(self.context, request, error))

    @property
    def width(self) -> int:
        return self.encoder.width if self.encoder else sum(GROUP_SIZES)

    def vector(self, recording: Recording) -> Floats:
        """The raw measurements (81,), NaN where missing, or the embedding; kept in the cache folder if there is one.

        Raises:
            DataError: if the recording cannot be read.
        """
        key = (recording, self._reader)
        if key not in self._vectors:
            try:
                self._vectors[key] = self._measured(*recording)
            except DataError as error:
                self._vectors[key] = error
        found = self._vectors[key]
        if isinstance(found, DataError):
            raise found
        return found

    def _measured(self, dataset: str, record_id: str) -> Floats:
        from heartllm.ecg.summary import VERSION, measure

        space = self.encoder.name if self.encoder else f"measurements-{VERSION}"
        file = cache_file(self.context, space, dataset, record_id, self._reader, ".npy")
        if file is not None and file.is_file():
            try:
                stored: Floats = read_array(file)
                if stored.shape == (self.width,):
                    return stored
            except (OSError, ValueError):
                pass  # cut off by a kill or a full disk; measure it again
        recording = self.context.workspace.read(dataset, record_id, self._reader)
        vector = self.encoder.vector(recording) if self.encoder else measurement_vector(measure(recording))
        if file is not None:
            part = file.with_suffix(f".{os.getpid()}.part.npy")
            np.save(part, vector)
            part.replace(file)
        return vector


def measurement_vector(found: Any) -> Floats:
    """`heartllm.ecg.summary.Measurements` -> (81,) in the order of `GROUP_SIZES`, NaN where missing."""
    nan = np.nan
    spread = found.rr.std() / found.rr.mean() if len(found.rr) else nan
    early = found.early / found.beats if found.beats else nan
    angle = np.radians(nan if found.axis is None else found.axis)
    numbers = [found.rate, spread, early, float(found.p_ms is not None), found.pr_ms, found.qrs_ms, found.qtc_ms]
    head = [nan if value is None else value for value in numbers] + [np.sin(angle), np.cos(angle)]
    waves = [found.p, found.q, found.r, found.s, found.st, found.t]
    return np.concatenate([head, *(np.full(12, nan) if wave is None else wave for wave in waves)])


class _Index:
    """The training requests by what was asked, and the standardised measurements of their recordings."""

    def __init__(self, owner: Retrieval, training: Sequence[Request]) -> None:
        self.owner = owner
        self.rows: dict[Recording, int] = {}
        vectors: list[Floats] = []
        unusable: list[str] = []
        for recording in sorted({part for example in training for part in _recordings(example)}):
            try:
                vectors.append(owner.vector(recording))
                self.rows[recording] = len(self.rows)
            except DataError:
                unusable.append(recording[1])
        if unusable:
            owner.context.warn(f"retrieval: {len(unusable):,} training recordings cannot be read and are left out")
        raw = np.stack(vectors) if vectors else np.zeros((0, owner.width))
        self.mean, self.scale, self.cut = np.zeros(()), np.ones(()), np.full((), np.inf)
        if owner.encoder is None:
            self._measure_scales(raw)
        self.table = self.standardise(raw)
        answers: dict[Hashable, dict[tuple[int, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
        for example in training:
            rows = tuple(self.rows.get(recording, -1) for recording in _recordings(example))
            for key in _keys(example) if rows and min(rows) >= 0 else ():
                answers[key][rows].append(gold_text(example))
        # What was asked -> rows of the recordings that it was asked of (n, 1 or 2), and what was answered there.
        self.examples = {key: (np.array(list(known)), list(known.values())) for key, known in answers.items()}
        self.distances: dict[Recording, Floats] = {}

    def _measure_scales(self, raw: Floats) -> None:
        with np.errstate(invalid="ignore"):
            there = np.isfinite(raw)
            count = np.maximum(there.sum(0), 1)
            self.mean = np.where(there, raw, 0).sum(0) / count
            spread = np.sqrt((np.where(there, raw - self.mean, 0) ** 2).sum(0) / count)
        self.scale = np.where(spread > 0, spread, 1.0) * np.repeat(np.sqrt(GROUP_SIZES), GROUP_SIZES)
        self.cut = CUT / np.repeat(np.sqrt(GROUP_SIZES), GROUP_SIZES)

    def standardise(self, raw: Floats) -> Floats:
        scaled = (raw - self.mean) / self.scale
        return np.clip(np.where(np.isfinite(scaled), scaled, 0.0), -self.cut, self.cut)

    def distance(self, recording: Recording) -> Floats:
        """Squared distances (N,) to the training recordings; infinite to itself."""
        if recording not in self.distances:
            vector = self.standardise(self.owner.vector(recording))
            self.distances[recording] = ((self.table - vector) ** 2).sum(1)
            if recording in self.rows:
                self.distances[recording][self.rows[recording]] = np.inf
        return self.distances[recording]

    def answer(self, request: Request, k: int) -> str:
        """The most frequent answer of the `k` nearest that were asked the same."""
        allowed = {*request.options, "none"}
        to_each = [self.distance(recording) for recording in _recordings(request)]
        for key in _keys(request):
            rows, said = self.examples.get(key, (np.zeros((0, len(to_each)), np.int64), []))
            total = np.sum([part[rows[:, place]] for place, part in enumerate(to_each)], axis=0)
            texts: list[str] = []
            for index in np.argsort(total, kind="stable"):
                fitting = [t for t in said[index] if not request.options or set(t.split(ANSWER_SEPARATOR)) <= allowed]
                if fitting and np.isfinite(total[index]):
                    texts.append(Counter(fitting).most_common(1)[0][0])
                if len(texts) == k:
                    break
            if texts:
                return Counter(texts).most_common(1)[0][0]  # of equally frequent ones the nearer: it came first
        return request.options[0] if request.options else ""


class _Texts:
    """The distinct training reports, by the embedding of their texts."""

    def __init__(self, owner: Retrieval, training: Sequence[Request]) -> None:
        assert owner.encoder is not None
        self.owner = owner
        owners: dict[str, set[Recording]] = defaultdict(set)
        for example in training:
            owners[gold_text(example)].update(_recordings(example))
        self.owners = list(owners.items())
        self.table = owner.encoder.texts(list(owners)) if owners else np.zeros((0, owner.width))

    def answer(self, request: Request, k: int) -> str:
        """The nearest; one that only the request's own recording has is not looked at. `k` changes nothing."""
        asked = _recordings(request)
        vector = np.mean([self.owner.vector(recording) for recording in asked], axis=0)
        for index in np.argsort(-(self.table @ vector), kind="stable"):
            text, owners = self.owners[index]
            if not owners <= set(asked):
                return text
        return ""


def _recordings(request: Request) -> tuple[Recording, ...]:
    return tuple((request.dataset, record) for record in request.record_ids)


def _keys(request: Request) -> tuple[Hashable, ...]:
    """From the narrowest to the widest; questions about one ECG and about two are never mixed."""
    shown = len(request.record_ids)
    return (
        ("filled", shown, request.template_id, request.attribute),
        ("template", shown, request.template_id),
        ("type", shown, request.question_type),
    )

"""What the harness writes and reads: requests, predictions, samples, and the record of a run.

Everything is a frozen dataclass with one JSON form, and each file says which version of that form it holds
(`SCHEMA_VERSION`), so that a later reader can tell what it has before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1

Kind = Literal["qa", "report"]
KINDS: tuple[Kind, ...] = ("qa", "report")
ANSWER_SEEN = "answer_seen"  # the slice that tells a model's unseen answers apart (see `heartllm_eval.unseen`)


def digest(*parts: str, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of `parts`, which are kept apart by a separator no text holds."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8")).hexdigest()[:length]


def cluster_id(dataset: str, patient_id: str) -> str:
    """The cluster of a sample: a hash prefix, so that no run folder shows a patient's id.

    It is not anonymous: it has no salt, so that runs compare, and whoever knows the ids can compute it.
    """
    return digest(dataset, patient_id, length=12)


@dataclass(frozen=True)
class Request:
    """One thing asked of a model.

    Attributes:
        id: unique within a suite and the same in every run of it.
        kind: "qa" (the answer is a set of classes) or "report" (free text).
        dataset: the dataset's name.
        record_ids: the recordings shown, in order (one, or two in comparison questions).
        cluster: hashed patient id; the unit that the bootstrap draws.
        question: the question; empty for a report.
        question_type: ECG-QA's name ("single-verify"), or "report".
        attribute_type: ECG-QA's name ("scp_code", "noise", ...); empty for a report.
        template_id: ECG-QA's template; 0 for a report.
        attribute: the attributes that fill the template.
        options: the classes allowed as an answer; empty where they are not known.
        background: structured patient features as text (TAB).
        references: the right answer's classes, or the acceptable report texts.
        derived: built from labels rather than taken from the dataset's own question files.
        slices: further properties to break results down by ("sex" -> "female", "age" -> "60-79").
    """

    id: str
    kind: Kind
    dataset: str = ""
    record_ids: tuple[str, ...] = ()
    cluster: str = ""
    question: str = ""
    question_type: str = ""
    attribute_type: str = ""
    template_id: int = 0
    attribute: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    background: str = ""
    references: tuple[str, ...] = ()
    derived: bool = False
    slices: Mapping[str, str] = field(default_factory=dict)

    def slice(self, name: str) -> str:
        """The value of slice `name`: a field of this name if there is one, otherwise an entry of `slices`."""
        if name in ("question_type", "attribute_type", "dataset", "kind"):
            return str(getattr(self, name)) or "unknown"
        if name == "template_id":
            return str(self.template_id)
        return self.slices.get(name, "unknown")


@dataclass(frozen=True)
class Prediction:
    """What a model said.

    Attributes:
        text: the answer or report.
        error: why there is no text, where there is none; such a sample is scored as wrong.
        option_scores: candidate answer -> its log likelihood in nats as the whole answer, where the model was asked to
            rank them. Candidates are the request's options, "none", and several options joined with "; ".
    """

    id: str
    text: str
    error: str | None = None
    option_scores: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Sample:
    """A request, what was said, and the per-sample figures of each metric ("exact_match.strict" -> 1.0)."""

    request: Request
    prediction: Prediction
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One number of a table, with all that is needed to trust it.

    Attributes:
        task, system: whose number it is.
        metric: "exact_match.strict", "bleu.heartllm/bleu4".
        slice: "all", or "question_type=single-verify".
        value: the score, in per cent.
        low, high: the interval at `confidence`; None where there are too few clusters for one.
        n: samples. clusters: patients.
        interval: how the interval was made: "bootstrap" (percentile, by cluster), "clopper-pearson" (exact, on the
            effective number of answers; few clusters, or nearly all answers right or wrong) or "none".
    """

    task: str
    system: str
    metric: str
    slice: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    confidence: float = 0.95
    interval: str = "bootstrap"


@dataclass(frozen=True)
class Difference:
    """Model minus control on the same samples.

    Attributes:
        value, low, high: the difference in points and its paired interval by cluster.
        p: the larger of `p_mcnemar` and `p_bootstrap`, so that both must agree: McNemar's test takes the answers of one
            patient as independent, the bootstrap needs enough patients. With fewer, the exact sign test over patients
            takes the bootstrap's place.
        p_holm: `p` after Holm's correction over all differences of the same run (or comparison).
        test: the tests behind `p`: "mcnemar+bootstrap", "mcnemar+sign" (too few clusters to draw from) or "bootstrap".
        only_model, only_control: discordant pairs (right-or-wrong metrics only).
        model_value, control_value: the two scores that the difference is taken of.
        p_mcnemar: McNemar's exact p (right-or-wrong metrics only). p_bootstrap: paired bootstrap by cluster; None where
            there are too few clusters.
    """

    task: str
    system: str
    control: str
    metric: str
    slice: str
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    test: str
    n: int
    clusters: int
    only_model: int | None = None
    only_control: int | None = None
    model_value: float | None = None
    control_value: float | None = None
    p_mcnemar: float | None = None
    p_bootstrap: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """`run.json`: written when a run starts and again when it ends, whatever its end.

    `config` is what decides the samples and scores; a run folder is continued only by the same config.
    """

    status: Literal["running", "done", "predicted", "error", "interrupted"]
    command: tuple[str, ...]
    config: Mapping[str, Any]
    started: str
    schema_version: int = SCHEMA_VERSION
    finished: str | None = None
    error: str | None = None
    resumed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    systems: Mapping[str, Any] = field(default_factory=dict)
    signatures: Mapping[str, str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    differences: tuple[Difference, ...] = ()
    timing: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float | None = None


def to_json(value: Any) -> Any:
    """The JSON form of a schema object: dataclasses become objects, tuples lists; NaN becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {part.name: to_json(getattr(value, part.name)) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    if isinstance(value, float) and value != value:
        return None
    return value


def dumps(value: Any, *, indent: int | None = None) -> str:
    """The JSON text of a schema object; one line unless `indent` is given."""
    return json.dumps(to_json(value), ensure_ascii=False, indent=indent, allow_nan=False)


def request_from_json(data: Mapping[str, Any]) -> Request:
    """Reads a request back. Unknown keys are ignored (a later version may add some).

    Raises:
        ValueError: if the id is missing, or a field has a wrong type.
    """
    if not isinstance(data.get("id"), str) or data.get("kind") not in KINDS:
        raise ValueError("a request needs a text 'id' and a 'kind' that is 'qa' or 'report'")
    values: dict[str, Any] = {}
    for part in dataclasses.fields(Request):
        if part.name not in data:
            continue
        value = data[part.name]
        if part.name in ("record_ids", "attribute", "options", "references"):
            if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{part.name!r} must be a list of texts")
            value = tuple(value)
        elif part.name == "template_id":
            if not isinstance(value, int):
                raise ValueError("'template_id' must be a whole number")
        elif part.name == "slices":
            if not isinstance(value, Mapping):
                raise ValueError("'slices' must be an object")
            value = {str(key): str(item) for key, item in value.items()}
        elif part.name != "derived" and not isinstance(value, str):
            raise ValueError(f"{part.name!r} must be text")
        values[part.name] = value
    return Request(**values)


def sample_from_json(data: Mapping[str, Any]) -> Sample:
    """Reads a line of samples.jsonl back.

    Raises:
        ValueError: if it is not one.
    """
    request, prediction = data.get("request"), data.get("prediction")
    if not isinstance(request, Mapping) or not isinstance(prediction, Mapping):
        raise ValueError("a sample has a 'request' and a 'prediction'")
    text, error = prediction.get("text"), prediction.get("error")
    if not isinstance(text, str) or not (error is None or isinstance(error, str)):
        raise ValueError("a prediction has a 'text'")
    wanted = request_from_json(request)
    scores = {str(key): float(value) for key, value in dict(data.get("scores") or {}).items() if value is not None}
    ranked = prediction.get("option_scores")
    return Sample(wanted, Prediction(wanted.id, text, error, ranked and option_scores_from_json(ranked)), scores)


def option_scores_from_json(data: Any) -> dict[str, float]:
    """Reads the scores of candidate answers.

    Raises:
        ValueError: unless it is an object of finite numbers.
    """
    numbers = data.values() if isinstance(data, Mapping) else (None,)
    try:
        fine = all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers)
    except OverflowError:  # a whole number that no float holds
        fine = False
    if not fine:
        raise ValueError("'option_scores' must be an object of finite numbers")
    return {str(key): float(value) for key, value in data.items()}


def requests_hash(requests: Iterable[Request]) -> str:
    """What was asked, as one hash: questions, options, references, clusters and their order.

    Whether an answer was seen in training is left out: it is a property of the model that is asked.
    """
    total = hashlib.sha256()
    for request in requests:
        if ANSWER_SEEN in request.slices:
            kept = {name: value for name, value in request.slices.items() if name != ANSWER_SEEN}
            request = dataclasses.replace(request, slices=kept)
        total.update(dumps(request).encode("utf-8") + b"\n")
    return total.hexdigest()


def ids_hash(requests: Sequence[Request]) -> str:
    """The hash of the set of sample ids: two runs with the same one can be compared sample by sample."""
    return hashlib.sha256("\n".join(sorted(request.id for request in requests)).encode("utf-8")).hexdigest()

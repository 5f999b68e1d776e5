"""Score against the strength of a perturbation: a run for each point, and each point paired with the run without.

The runs lie in a folder of their own, one folder a point, as `heartllm-eval run --perturb` makes them; a measurement
that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from heartllm.ecg.perturb import parse
from heartllm.errors import DataError, UsageError
from heartllm.writing import write_whole
from heartllm_eval.comparison.sides import Reader, Side, Spec
from heartllm_eval.metrics.base import Metric
from heartllm_eval.planning import RunSpec
from heartllm_eval.requests import Workspace
from heartllm_eval.schema import Difference, Request, RunRecord, to_json
from heartllm_eval.scoring import Options, Scored, correct_for_many, evaluate, load_metrics, score_system
from heartllm_eval.suite import Suite

SCHEMA = 1
CLEAN = "clean"
CURVES = (
    "noise=white:30dB,20dB,10dB,5dB,0dB",
    "noise=muscle:30dB,20dB,10dB,5dB,0dB",
    "noise=wander:30dB,20dB,10dB,5dB,0dB",
    "noise=powerline:30dB,20dB,10dB,5dB,0dB",
    "gain=0.25,0.5,0.8,1.25,2,4",
    "resample=250,125,62.5,31.25",
    "lowpass=100,40,25,15",
    "swap=LA-RA,LA-LL,LL-RA,V1-V2",
    "channels=aVL-aVF,V1-V6",
    "missing=II,V1,V3,I+II+III+aVR+aVL+aVF,V1+V2+V3+V4+V5+V6",
)


@dataclass(frozen=True)
class Point:
    """One run of a curve.

    Attributes:
        curve: "noise=muscle", "swap": what is perturbed. value: how much: "10dB", "LA-RA".
        strength: the number in `value`; None where there is none ("LA-RA").
        slice: "all", or "question_type=...".
        score, low, high: of the primary metric, in per cent, with its interval by patient.
        change, change_low, change_high, p, p_holm: shifted minus clean, paired by sample, resampled by patient.
    """

    curve: str
    value: str
    strength: float | None
    slice: str
    score: float | None
    low: float | None
    high: float | None
    change: float | None
    change_low: float | None
    change_high: float | None
    p: float | None
    p_holm: float | None
    n: int
    patients: int


@dataclass(frozen=True)
class Measured:
    """One system on one suite; the data file of the figure.

    Attributes:
        system: its name in the figure. about: suite, title, dataset, synthetic, metric, limit, seed, fingerprint.
        levels: "clean" and the controls of the clean run -> [score, low, high].
        points: in the order of the curves.
    """

    system: str
    about: dict[str, Any]
    levels: dict[str, list[float | None]]
    points: list[Point] = field(default_factory=list)


def read_curve(text: str) -> list[tuple[str, str]]:
    """ "noise=muscle:20dB,10dB" -> the texts of `--perturb` ("noise=muscle:20dB", ...), each with its curve's name.

    Raises:
        UsageError: for a perturbation that does not exist.
    """
    kind, _, values = text.partition("=")
    prefix, found = "", []
    for value in (part.strip() for part in values.split(",")):
        if kind == "noise" and ":" in value:
            prefix, _, value = value.partition(":")
        step = parse(f"{kind}={prefix}:{value}" if prefix else f"{kind}={value}")
        found.append((f"noise={step.value.partition(':')[0]}" if kind == "noise" else kind, str(step)))
    return found


def strength_of(text: str) -> float | None:
    """The number in "noise=muscle:10dB", "gain=0.5", "resample=250Hz"; None in "swap=LA-RA"."""
    match = re.fullmatch(r"(?:\w+:)?(-?\d+(?:\.\d+)?)(?:dB|mV|Hz)?", text.partition("=")[2])
    return float(match[1]) if match else None


def measure(
    spec: RunSpec, curves: Sequence[str], system: str, *, run: Callable[..., RunRecord], say: Callable[[str], Any]
) -> Measured:
    """Runs the suite without and with every perturbation, and pairs them.

    Args:
        spec: the run without; `output` is the folder of all runs, `controls` are asked once. It has one suite.
        curves: see `read_curve`.
        system: the model's name in the figure.
        run: `heartllm_eval.runner.run`.
        say: is told how far it is.
    """
    if len(spec.suites) != 1:
        raise UsageError(f"{len(spec.suites)} suites", where="--tasks", remedy="Name one.")
    steps = list(dict.fromkeys(step for text in curves for step in read_curve(text)))
    suite, options = spec.suites[0], spec.options
    say(f"{suite.name}: clean, then {len(steps)} perturbed runs")
    datasets = Workspace(spec.data_roots)
    clean = run(replace(spec, output=spec.output / CLEAN, perturb=()), workspace=datasets)
    points: list[Point] = []
    for number, (curve, text) in enumerate(steps, start=1):
        say(f"{number} of {len(steps)}: {text}")
        folder = spec.output / folder_name(text)
        run(replace(spec, output=folder, perturb=(text,), controls=False, control_names=()), workspace=datasets)
        points += _points(suite, curve, text, folder, spec.output / CLEAN, options)
    adjusted = correct_for_many([_as_difference(point) for point in points])
    points = [replace(point, p_holm=part.p_holm) for point, part in zip(points, adjusted, strict=True)]
    return Measured(system, _about(spec, suite, clean, points), _levels(suite, clean), points)


def folder_name(text: str) -> str:
    """ "noise=muscle:10dB" -> noise-muscle-10dB."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", text)


def paired_samples(sides: Sequence[Side], task: str, metrics: Sequence[Metric]) -> tuple[list[Request], list[Scored]]:
    """The requests that all sides answered, the same in question and right answer, and each side's scores on them.

    Raises:
        DataError: if there are none.
    """
    first, *others = ({request.id: request for request in side.requests[task]} for side in sides)
    requests = [
        request
        for key, request in first.items()
        if all(_asked(request) == _asked(other.get(key)) for other in others)
        and all(key in side.predictions[task] for side in sides)
    ]
    if not requests:
        raise DataError(
            f"no sample of {task} is in all of them",
            where=", ".join(str(side.path) for side in sides),
            remedy="Run the same suite with the same --limit and --seed.",
        )
    labels = [str(number) for number in range(len(sides))]
    return requests, [
        score_system(label, requests, side.predictions[task], metrics)
        for label, side in zip(labels, sides, strict=True)
    ]


def _asked(request: Request | None) -> tuple[object, ...] | None:
    return None if request is None else (request.question, request.references, request.options, request.cluster)


def _points(suite: Suite, curve: str, text: str, folder: Path, clean: Path, options: Options) -> list[Point]:
    metric = load_metrics([suite.primary_metric])
    slices = [name for name in suite.slices if name == "question_type"]
    reader = Reader([suite.name])
    sides = [reader.read(Spec(str(path), path)) for path in (folder, clean)]
    requests, scored = paired_samples(sides, suite.name, metric)
    result = evaluate(suite.name, requests, scored, metric, slices=slices, compare=metric[0].name, options=options)
    name = metric[0].full_name(metric[0].figures[-1])
    by_slice = {part.slice: part for part in result.differences if part.metric == name}
    return [
        Point(
            curve, text.partition("=")[2], strength_of(text), figure.slice, figure.value, figure.low, figure.high,
            part.value, part.low, part.high, part.p, None, figure.n, figure.clusters,
        )
        for figure in result.figures
        if figure.system == "0" and figure.metric == name and (part := by_slice.get(figure.slice)) is not None
    ]  # fmt: skip


def _as_difference(point: Point) -> Difference:
    """For Holm's correction, which runs over the curves' points on all requests; slices are shown without."""
    p = point.p if point.slice == "all" else None
    return Difference("", "", "", "", point.slice, None, None, None, p, None, "", point.n, point.patients)


def _levels(suite: Suite, record: RunRecord) -> dict[str, list[float | None]]:
    metric = load_metrics([suite.primary_metric])[0]
    name = metric.full_name(metric.figures[-1])
    return {
        CLEAN if figure.system == "model" else figure.system: [figure.value, figure.low, figure.high]
        for figure in record.figures
        if figure.metric == name and figure.slice == "all"
    }


def _about(spec: RunSpec, suite: Suite, record: RunRecord, points: Sequence[Point]) -> dict[str, Any]:
    model = dict(record.systems["model"])
    return {
        "suite": suite.name,
        "title": suite.caption,
        "dataset": suite.dataset,
        "synthetic": suite.synthetic,
        "metric": suite.primary_metric,
        "limit": spec.limit,
        "seed": spec.seed,
        "requests": next(iter(points)).n if points else 0,
        "patients": next(iter(points)).patients if points else 0,
        "fingerprint": dict(model.get("model") or {}).get("fingerprint"),
        "training": dict(model.get("training") or {}).get(suite.name),
    }


def write(measured: Measured, folder: Path) -> Path:
    """Writes the data file: SYSTEM-SUITE.json."""
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", measured.system.lower()).strip("-")
    path = folder / f"{name}-{measured.about['suite']}.json"
    body = {"schema": SCHEMA, **to_json(measured)}
    lines = ",\n".join(json.dumps(point, ensure_ascii=False) for point in body.pop("points"))
    text = json.dumps(body, ensure_ascii=False, indent=0)[:-2] + f',\n"points": [\n{lines}\n]\n}}\n'
    write_whole(path, text)
    return path


def read(path: Path) -> Measured:
    """Reads a data file.

    Raises:
        DataError: where it is not one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("another version")
        points = [Point(**point) for point in data.pop("points")]
        return Measured(points=points, **data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"is not a file of shifts ({error})", where=path, remedy="Run heartllm-eval measure shift again."
        ) from None


def rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every point, for the CSV beside the figure; "clean" and controls are points without a curve."""
    found = []
    for one in measured:
        head = {"system": one.system, "suite": one.about["suite"]}
        empty = dict.fromkeys(Point.__dataclass_fields__)
        for name, (score, low, high) in one.levels.items():
            level = {"curve": "", "value": name, "slice": "all", "score": score, "low": low, "high": high}
            found.append({**head, **empty, **level, "n": one.about["requests"], "patients": one.about["patients"]})
        found += [{**head, **asdict(point)} for point in one.points]
    return found

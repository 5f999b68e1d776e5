"""Asking a model what is not answered yet, and putting together what several processes were answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from heartllm.errors import DataError
from heartllm.launched import World
from heartllm.plain import well_formed
from heartllm_eval import processes
from heartllm_eval.cache import AnswerCache
from heartllm_eval.metrics.base import Metric
from heartllm_eval.models import base
from heartllm_eval.planning import System
from heartllm_eval.progress import Progress
from heartllm_eval.samples import SampleLog, answered, merge, shard_size
from heartllm_eval.schema import Prediction, Request, Sample
from heartllm_eval.scoring import sample_statistics

MAX_FAILED_SHARE = 0.05  # of a system's samples; more is no evaluation any more


def ask(
    system: System,
    adapter: base.Adapter,
    task: base.Task,
    metrics: Sequence[Metric],
    *,
    cache: AnswerCache,
    output: Path,
    world: World,
    say: Progress,
) -> None:
    """Asks this process's share of what is not answered yet; every answer is on disk before the next is taken.

    Raises:
        DataError: if the adapter leaves requests out, or answers some twice.
    """
    name = f"{task.name}/{system.name}"
    mine = processes.share(task.requests, world)
    with SampleLog(output / task.name / system.name, world.rank) as log, cache:
        done = set(log.done)
        if world.size == 1 and system.kind != "predictions":  # what failed at an earlier start may go well now
            done -= {key for key, sample in log.done.items() if sample.prediction.error}
        pending = {request.id: request for request in mine if request.id not in done}
        if len(pending) < len(mine):
            say.note(f"{name}: {len(mine) - len(pending):,} of {len(mine):,} are already answered")
        with say.bar(name, len(pending)) as step:
            for prediction in _answers(pending, adapter, task, cache):
                request = pending.pop(prediction.id, None)
                if request is None:
                    raise DataError(
                        f"answered {prediction.id!r} twice or unasked",
                        where=f"model {system.kind}",
                        remedy="Correct the adapter.",
                    )
                log.append(_sample(request, prediction, metrics))
                step()
        if pending:
            raise DataError(
                f"left {len(pending):,} requests unanswered",
                where=f"model {system.kind}",
                remedy="Correct the adapter.",
            )


def _answers(
    pending: dict[str, Request], adapter: base.Adapter, task: base.Task, cache: AnswerCache
) -> Iterator[Prediction]:
    """Answers from the cache, then the model's, which are kept there."""
    requests = list(pending.values())
    unknown = []
    for request in requests:
        stored = cache.find(request, task)
        if stored is None:
            unknown.append(request)
        else:
            yield stored
    by_id = {request.id: request for request in unknown}
    if unknown:
        for prediction in adapter.predict(unknown, task):
            prediction = _checked(prediction, task)
            if prediction.id in by_id:
                cache.keep(by_id[prediction.id], task, prediction)
            yield prediction


def _checked(prediction: object, task: base.Task) -> Prediction:
    """What an adapter has given, in a form that can be written: no halves of characters, no infinite likelihoods.

    Raises:
        DataError: if it is not what is asked of an adapter.
    """
    remedy = 'Correct the adapter; a request that failed has the text "" and an error.'
    if not isinstance(prediction, Prediction):
        raise DataError(f"the model gave {type(prediction).__name__}, not Prediction", where=task.name, remedy=remedy)
    if not isinstance(prediction.text, str):
        raise DataError(
            f"the model answered {prediction.id!r} with {type(prediction.text).__name__}, not text",
            where=task.name,
            remedy=remedy,
        )
    if not (prediction.error is None or isinstance(prediction.error, str)):
        raise DataError(
            f"the error of {prediction.id!r} is {type(prediction.error).__name__}, not text",
            where=task.name,
            remedy=remedy,
        )
    ranked = prediction.option_scores
    return replace(
        prediction,
        text=well_formed(prediction.text),
        error=prediction.error and well_formed(prediction.error),
        option_scores=ranked and {name: score for name, score in ranked.items() if math.isfinite(score)},
    )


def gather(
    task: str, system: System, requests: Sequence[Request], output: Path, warn: Callable[[str], None]
) -> dict[str, Prediction]:
    """Waits until all processes have answered, writes samples.jsonl in the order of the plan, and gives the answers.

    Raises:
        DataError: if too many requests failed.
    """
    folder = output / task / system.name
    seen = -1

    def all_answered() -> dict[str, Sample] | None:
        nonlocal seen
        size = shard_size(folder)
        if size == seen:  # nothing new to read
            return None
        seen = size
        found = answered(folder)
        return found if all(request.id in found for request in requests) else None

    samples = processes.wait_for(f"seen all answers to {task}/{system.name}", all_answered, output)
    merge(folder, samples, [request.id for request in requests])
    predictions = {request.id: samples[request.id].prediction for request in requests}
    _count_failures(f"{task}/{system.name}", system, list(predictions.values()), warn)
    return predictions


def _sample(request: Request, prediction: Prediction, metrics: Sequence[Metric]) -> Sample:
    scores: dict[str, float] = {}
    for metric in metrics:
        scores.update(metric.sample_scores(sample_statistics(metric, prediction, request)))
    return Sample(request, prediction, scores)


def _count_failures(name: str, system: System, predictions: Sequence[Prediction], warn: Callable[[str], None]) -> None:
    failed = [prediction for prediction in predictions if prediction.error]
    if failed:
        warn(
            f"{name}: {len(failed):,} of {len(predictions):,} requests have no answer and count as "
            f"wrong (first: {failed[0].error})"
        )
    if system.kind != "predictions" and len(failed) > MAX_FAILED_SHARE * len(predictions):
        raise DataError(
            f"{len(failed):,} of {len(predictions):,} requests failed; the first: {failed[0].error}",
            where=name,
            remedy=f"Mend the data; at most {MAX_FAILED_SHARE:.0%} may fail.",
        )

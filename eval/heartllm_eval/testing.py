"""For tests of adapters, ours and others': requests about recordings that do not exist, and a model in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heartllm_eval.models.base import Task
from heartllm_eval.schema import Prediction, Request, cluster_id

TYPES = ("single-verify", "single-choose", "single-query")
OPTIONS = {
    "single-verify": ("no", "not sure", "yes"),
    "single-choose": ("left axis deviation", "normal heart axis", "none"),
    "single-query": ("lead aVR", "lead I", "lead V1", "none"),
}


def invented_requests(split: str, patients: int = 24, dataset: str = "ptbxl") -> list[Request]:
    """Three questions, one of each type, about each of two recordings of each patient; the answers follow a pattern."""
    requests = []
    for patient in range(patients):
        for visit in range(2):
            record = f"{split}{patient}v{visit}"
            for number, kind in enumerate(TYPES):
                options = OPTIONS[kind]
                answer = options[(patient * (number + 1) + visit) % len(options)]
                requests.append(
                    Request(
                        id=f"{record}-{number}",
                        kind="qa",
                        dataset=dataset,
                        record_ids=(record,),
                        cluster=cluster_id(dataset, f"{split}{patient}"),
                        question=f"Question {number}?",
                        question_type=kind,
                        attribute_type=("scp_code", "heart_axis", "noise")[number],
                        template_id=number + 1,
                        options=options,
                        background="Age: 61 years.",
                        references=(answer,),
                        derived=True,
                        slices={"sex": ("female", "male")[patient % 2], "age": "60-79"},
                    )
                )
    return requests


class Echo:
    """A model in memory: right on every request whose number in the list is not a multiple of `wrong_every`."""

    def __init__(
        self, *, wrong_every: int = 4, crash_after: int | None = None, error: type[BaseException] = RuntimeError
    ) -> None:
        self.wrong_every, self.crash_after, self.error = wrong_every, crash_after, error
        self.asked: list[str] = []

    def describe(self) -> Mapping[str, Any]:
        return {"wrong_every": self.wrong_every}

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        position = {request.id: index for index, request in enumerate(task.requests)}
        for done, request in enumerate(requests):
            if done == self.crash_after:
                raise self.error("pulled the plug")
            self.asked.append(request.id)
            wrong = position[request.id] % self.wrong_every == 0
            yield Prediction(request.id, "no idea" if wrong else "; ".join(request.references))

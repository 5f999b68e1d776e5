"""A run of an invented suite by a model in memory that takes its time; for tests that kill it, or start it in several
processes: `python slow_run.py OUT PAUSE [RANK COUNT]` fails in process RANK after COUNT answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from heartllm.errors import DataError, run_command_line
from heartllm.launched import world_from_environment
from heartllm_eval import planning, runner
from heartllm_eval.models import base
from heartllm_eval.processes import ends_well, launch
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.scoring import Options
from heartllm_eval.suite import Suite
from heartllm_eval.testing import Echo, invented_requests

PATIENTS = 31  # times 2 recordings of 3 questions: no multiple of 2 or 3 recordings is left over alike


class Slow(Echo):
    def __init__(self, pause: float, fail_after: int | None) -> None:
        super().__init__()
        self.pause, self.fail_after = pause, fail_after

    def predict(self, requests: Sequence[Request], task: base.Task) -> Iterator[Prediction]:
        for number, prediction in enumerate(super().predict(requests, task)):
            if number == self.fail_after:
                raise DataError("the model fell over", where="invented", remedy="Help it up.")
            time.sleep(self.pause)
            yield prediction


def build(suite: Suite, workspace: object, *, split: str | None = None) -> list[Request]:
    return invented_requests(split or suite.split, patients=PATIENTS)


def main() -> None:
    if sys.argv[1] == "--launch":
        count, *arguments = sys.argv[2:]
        with ends_well():
            launch(arguments, int(count), Path(arguments[0]), program=(__file__,))
        return
    out, pause, *failing = sys.argv[1:]
    planning.build_requests = base.build_requests = build
    world = world_from_environment()
    suite = Suite(version=1, name="invented_qa", title="T", kind="qa", dataset="ptbxl", slices=("question_type",))
    spec = planning.RunSpec(
        "echo", (suite,), Path(out), options=Options(resamples=100), verbosity=0, world=world, command=("slow_run",)
    )
    fails = failing and int(failing[0]) == world.rank
    with ends_well():
        runner.run(spec, lambda system, context: Slow(float(pause), int(failing[1]) if fails else None))


if __name__ == "__main__":
    run_command_line(main)

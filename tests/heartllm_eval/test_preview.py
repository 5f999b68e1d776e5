"""`--dry-run`: what is done once is not taken for what every request costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from heartllm_eval.commands import preview
from heartllm_eval.models.base import Task
from heartllm_eval.planning import System
from heartllm_eval.schema import Prediction, Request
from heartllm_eval.testing import Echo, invented_requests


class Learner(Echo):
    """Learns for 100 s, once, and takes 1 s a request of a clock of its own."""

    clock = 0.0
    learnt = False

    def predict(self, requests: Sequence[Request], task: Task) -> Iterator[Prediction]:
        self.clock += 0.0 if self.learnt else 100.0
        self.learnt = True
        for request in requests:
            self.clock += 1.0
            yield Prediction(request.id, "yes")


@pytest.mark.parametrize(("probe", "asked"), [(1, 6), (6, 6), (20, 21), (10_000, 144)])
def test_time_of_a_model_that_learns_first(
    probe: int, asked: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter, requests = Learner(), invented_requests("test")
    monkeypatch.setattr(preview.time, "monotonic", lambda: adapter.clock)
    preview._estimate(System("model", "learner", {}), adapter, Task("t", "qa", requests), probe)
    assert capsys.readouterr().out == f"t/model: about 4 min, by {asked} of 144 requests\n"  # 100 s and 144 s


def test_one_group_is_all_there_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, requests = Learner(), invented_requests("test")[:3]
    monkeypatch.setattr(preview.time, "monotonic", lambda: adapter.clock)
    preview._estimate(System("model", "learner", {}), adapter, Task("t", "qa", requests), 2)
    assert capsys.readouterr().out == "t/model: about 2 min, by 3 of 3 requests\n"


def test_groups_are_whole_and_from_everywhere() -> None:
    requests = invented_requests("test")
    groups = preview._some_groups(requests, 12)
    assert [len(group) for group in groups] == [3, 3, 3, 3]
    assert all(len({request.record_ids for request in group}) == 1 for group in groups)
    assert [requests.index(group[0]) for group in groups] == [0, 12, 24, 36]

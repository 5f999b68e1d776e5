"""The shading of ECGs on a page: of which answers, in which units, and what cannot be shaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.ecg.recording import Recording
from heartllm.errors import UsageError
from heartllm_eval.figures import attention_maps
from heartllm_eval.page.contents import Wanted, collect
from heartllm_eval.page.gather import gather
from heartllm_eval.page.shading import FEWEST, Shade, shades
from heartllm_eval.schema import Request
from heartllm_eval.testing import invented_requests

REFERENCE = Path(__file__).parents[3] / "reports" / "reference" / "checkpoint"
Make = Callable[..., Path]
Answers = Callable[..., Callable[[int, Request], str]]


@pytest.fixture
def requests() -> list[Request]:
    return invented_requests("test", 24)


def recordings(requests: list[Request], count: int = FEWEST) -> dict[tuple[str, str], Recording]:
    """Made beats at 72 a minute, of the first `count` recordings that are asked about."""
    times = np.arange(5000) / 500
    beat = np.exp(-(((times % 0.83) - 0.4) ** 2) / 2e-4)
    keys = dict.fromkeys((part.dataset, part.record_ids[0]) for part in requests)
    return {
        key: Recording((np.outer(np.linspace(0.5, 1.5, 12), beat) * (1 + number / 9)).astype(np.float32), 500.0)
        for number, key in enumerate(list(keys)[:count])
    }


def test_a_map_is_told_as_shares_of_its_largest() -> None:
    shade = Shade(np.array([0.0, 2.0, 1.0]), np.array([0.004, 0.002, 0.0]))
    assert shade.most == (2.0, 0.004)
    assert list(shade.packed()) == [0, 255, 128, 255, 128, 0]
    assert list(Shade(np.zeros(2), np.zeros(2)).packed()) == [0] * 4


def test_answers_to_recordings_on_the_page_are_shaded(
    write_run: Make, right_but: Answers, tmp_path: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def look(responder: Any, recording: Any, patient: str, features: str, pairs: Any, *rest: Any) -> Any:
        asked.extend(pairs)
        score = np.tile([-1.0, 3.0], (len(pairs), 1))
        return SimpleNamespace(scores={attention_maps.BEATS: score, attention_maps.ATTENTION: np.abs(score) / 10})

    monkeypatch.setattr(attention_maps, "look", look)
    monkeypatch.setattr("heartllm.responder.Responder.load", lambda *a, **k: SimpleNamespace(fingerprint="f"))
    run = write_run(tmp_path / "a", requests, right_but(4))
    found, shown, said = gather([str(run)]), recordings(requests), list[str]()
    made = shades(found.tasks, shown, REFERENCE, answered_by="other", warn=said.append)
    wanted = [part for part in requests if (part.dataset, *part.record_ids) in shown]
    assert {name for _, name in made} == {part.id for part in wanted}
    answers = found.tasks[0].sides[0].predictions["invented_qa"]
    assert sorted(asked) == sorted((part.question, answers[part.id].text) for part in wanted)
    assert all(list(shade.occlusion) == [0.0, 3.0] for shade in made.values())
    assert "not known to be this checkpoint's" in said[0]
    monkeypatch.setattr("heartllm_eval.page.ecgs.read", lambda *a, **k: shown)
    page = collect(found, Wanted(ecgs=FEWEST, shade=REFERENCE))
    chunk, nats, attention = page.meta["shades"]["invented_qa"][requests.index(wanted[0])]
    assert list(page.chunks[chunk]) == [0, 255, 85, 255]
    assert (nats, attention) == (3.0, pytest.approx(0.3))


def test_too_few_ecgs_are_refused(write_run: Make, right_but: Answers, tmp_path: Path, requests: list[Request]) -> None:
    found = gather([str(write_run(tmp_path / "a", requests, right_but(4)))])
    with pytest.raises(UsageError, match=r"takes 4 ECGs on the page, and there are 2\. Give --ecgs 4"):
        shades(found.tasks, recordings(requests, 2), REFERENCE, answered_by=None, warn=print)


@pytest.mark.slow
def test_the_reference_checkpoint_is_looked_into(
    write_run: Make, right_but: Answers, tmp_path: Path, requests: list[Request]
) -> None:
    run = write_run(tmp_path / "a", requests, right_but(4))
    made = shades(gather([str(run)]).tasks, recordings(requests), REFERENCE, answered_by=None, warn=print)
    assert made
    for shade in made.values():
        assert shade.occlusion.shape == shade.attention.shape == (313,)
        assert shade.occlusion.min() >= 0
        assert 0 < shade.attention.sum() <= 1

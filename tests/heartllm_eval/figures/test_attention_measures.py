"""What figure 4 a-b measures: which findings are asked for, maps of small untrained models, means by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")
pytest.importorskip("scipy", reason="needs the model stack: pip install 'heartllm[model]'")

from typer.testing import CliRunner

from heartllm.data.synthetic import simulate, write_site
from heartllm.data.synthetic.located import Located, locate, window_mask
from heartllm.errors import DataError, HeartLLMError, UsageError
from heartllm_eval.cli import app
from heartllm_eval.figures import attention_data
from heartllm_eval.figures.attention_data import measure
from heartllm_eval.figures.attention_maps import (
    BEATS,
    CYCLE,
    LEAD_GROUPS,
    SHUFFLED,
    Lenders,
    Maps,
    Settings,
    in_every_beat,
    look,
    phase_of,
)
from heartllm_eval.figures.attention_measures import (
    AFFIRMED,
    EVERY,
    METHODS,
    OTHER,
    READ,
    Target,
    choose,
    head_table,
    sample_rows,
    site_folder,
    summarise,
    targets_of,
)
from heartllm_eval.requests import Workspace

QUICK = Settings(draws=1, width=40, stride=60, batch=8)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_site("a", root, recordings=40, seed=11, workers=1)
    return root


@pytest.fixture
def workspace(site: Path) -> Workspace:
    return Workspace((site,))


def test_asked_is_what_labels_affirm_and_has_a_place(workspace: Workspace, site: Path) -> None:
    kinds = set()
    for entry in workspace.entries("synthetic-a"):
        truth = simulate(11, int(entry.record_id) - 50_001)[1]
        for target in targets_of(entry, locate(truth)):
            kinds.add(target.place.kind)
            assert target.name in target.question
            noise = entry.labels.noise or {}
            statements = entry.labels.statements or {}
            assert bool(noise.get(target.name)) or statements.get(target.name) in (0.0, 100.0)
    assert {"QRS", "ST-T"} <= kinds
    with pytest.raises(DataError, match="no finished synthetic site"):
        site_folder([site], "synthetic-b")


def place(name: str, kind: str, leads: tuple[str, ...] = ()) -> Target:
    return Target(name, f"{name}?", Located(kind, np.array([[2.0, 3.0]]), leads))


def test_choice_is_even_over_findings_and_stops_at_its_number() -> None:
    offered = {str(i): [place("common", "QRS"), place("rare", "QRS"), place("p", "P and PR")] for i in range(20)}
    records = list(offered)
    chosen = choose(records, offered.__getitem__, 4, 0)
    names = [target.name for targets in chosen.values() for target in targets]
    assert {name: names.count(name) for name in set(names)} == {"common": 2, "rare": 2, "p": 4}
    assert all(len({t.place.kind for t in targets}) == len(targets) for targets in chosen.values())
    assert choose(records[::-1], offered.__getitem__, 4, 0) == chosen
    assert list(choose(records, offered.__getitem__, 4, 1)) != list(chosen)
    only = choose(records, offered.__getitem__, 2, 0, ["P and PR"])
    assert [target.name for targets in only.values() for target in targets] == ["p", "p"]


def test_rows_of_a_map_that_knows_and_one_that_does_not() -> None:
    targets = [place("x", "QRS", ("II", "III", "aVF")), place("y", "ST-T")]
    mask = window_mask(targets[0].place.spans, 100).astype(float)
    random = np.random.default_rng(0)
    scores = {BEATS: np.stack([mask, 1 - mask]), CYCLE: np.zeros((2, 100)), SHUFFLED: random.random((2, 100))}
    heads = np.stack([np.stack([mask, -mask])[None], random.random((1, 2, 100))])
    groups = np.array([[0.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    maps = Maps(scores, heads, np.array([0.5, 0.5]), np.zeros(2), groups)
    about = {"dataset": "d", "recording": "r", "patient": "p"}
    rows, singles = sample_rows(targets, maps, np.array([1.0, -1.0]), about)
    by = {(row["finding"], row["method"]): row for row in rows}
    assert by["x", BEATS]["covered"] == 1.0
    assert by["x", OTHER]["covered"] == 0.0
    assert by["x", BEATS]["lead_group_found"] == 1.0
    assert by["x", BEATS]["lead_group_chance"] == 1 / len(LEAD_GROUPS)
    assert by["y", BEATS]["lead_group_found"] is None
    assert (by["x", BEATS]["answered"], by["y", BEATS]["answered"]) == (True, False)
    assert by["x", BEATS]["agreement"] == pytest.approx(1.0)
    best = head_table([row for row in singles if row["finding"] == "x"])
    assert [(row["head"], row["auc"]) for row in best] == [(0, 1.0), (1, 0.0)]


def test_means_and_chances_by_hand() -> None:
    base: dict[str, Any] = {
        "dataset": "d", "recording": "r", "finding": "f", "precision": 0.1, "auc": 0.6, "shift_rank": 0.5,
        "marked": 0.1, "ceiling": 1.0, "agreement": 0.0, "lead_group_found": None, "lead_group_chance": None,
    }  # fmt: skip
    rows = [
        {**base, "patient": str(i), "kind": "QRS" if i % 2 else "ST-T", "answered": i < 5, "method": BEATS,
         "covered": i / 20, "whole_drop": i / 3}
        for i in range(20)
    ]  # fmt: skip
    table = {(r["kind"], r["findings"], r["measure"]): r for r in summarise(rows, resamples=200)}
    assert table["all", EVERY, "covered"]["value"] == pytest.approx(np.mean(np.arange(20) / 20))
    assert table["all", EVERY, "covered"]["low"] < table["all", EVERY, "covered"]["value"]
    assert table["all", AFFIRMED, "covered"]["value"] == pytest.approx(0.1)
    assert table["QRS", EVERY, "covered"]["samples"] == 10
    assert table["all", EVERY, "precision"]["chance"] == pytest.approx(0.1)
    assert table["all", AFFIRMED, "covered"]["low"] is None  # five patients
    assert table["all", READ, "covered"]["samples"] == 2  # affirmed, and a nat or more hangs on the ECG: 3 and 4
    assert table["all", READ, "covered"]["value"] == pytest.approx(3.5 / 20)
    with pytest.raises(DataError, match="nothing was measured"):
        summarise([])


def test_a_measurement_goes_on_where_it_stopped(
    make_responder: Callable[..., Any], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about: dict[str, Any] = {"split": None, "per_kind": 1, "settings": QUICK, "kinds": ["QRS", "ST-T"]}
    rows, heads, _ = measure(make_responder(), workspace, ["synthetic-a"], tmp_path, **about)
    assert {row["method"] for row in rows} <= set(METHODS)
    assert {row["kind"] for row in rows} == {"QRS", "ST-T"}
    assert all(0 <= row[name] <= 1 for row in rows for name in ("covered", "precision", "auc", "shift_rank"))
    assert len(heads) == 4 * len([row for row in rows if row["method"] == BEATS])

    def fail(*given: Any, **more: Any) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(attention_data, "look", fail)
    again, _, _ = measure(make_responder(), workspace, ["synthetic-a"], tmp_path, **about)
    assert again == rows


def test_parts_of_the_beat_lie_alike_in_every_beat() -> None:
    import torch

    recording, truth = simulate(3, 0)  # sinus rhythm
    phases = phase_of(recording, 313, 2)
    assert sorted(set(phases)) == list(range(phases.max() + 1))
    of_qrs = {int(phases[int((onset + 0.04) * 31.3)]) for onset in truth.onsets}
    assert len(of_qrs) <= 2  # at the border of two parts
    own, lent = torch.zeros(313, 4), torch.ones(2, 313, 4) * torch.tensor([1.0, 2.0])[:, None, None]
    replaced = in_every_beat(own, lent, phases)
    assert replaced.shape == (2 * (phases.max() + 1), 313, 4)
    for part in range(phases.max() + 1):
        for draw in range(2):
            np.testing.assert_array_equal(replaced[2 * part + draw, :, 0], np.where(phases == part, draw + 1, 0))
    flat = replace(recording, signal=np.zeros((12, 5000), np.float32))
    assert not phase_of(flat, 313, 2).any()


@pytest.mark.parametrize("kind", ["fsq", "continuous"])
def test_maps_of_codes_and_of_soft_tokens(make_responder: Callable[..., Any], kind: str) -> None:
    responder = make_responder(kind)
    recordings = [(str(i), simulate(2, i)[0]) for i in range(3)]
    lenders = Lenders(recordings)
    about = (recordings[0][1], "0", "", [("sinus rhythm?", "yes"), ("pvc?", "no")], lenders, QUICK)
    maps = look(responder, *about[:5], replace(QUICK, place=True), np.random.default_rng(0))
    assert len(maps.scores) == 7
    assert all(scores.shape == (2, 313) and np.isfinite(scores).all() for scores in maps.scores.values())
    assert maps.heads.shape == (2, 2, 2, 313)
    assert maps.groups.shape == (2, len(LEAD_GROUPS))
    assert ((maps.share > 0) & (maps.share < 1)).all()
    with pytest.raises(DataError, match="beats to lend"):
        look(responder, *about[:5], replace(QUICK, draws=3), np.random.default_rng(0))
    responder.blind = True
    with pytest.raises(UsageError, match="blind"):
        look(responder, *about, np.random.default_rng(0))


@pytest.mark.parametrize(
    "arguments",
    [["-a", "colour=red"], ["-a", "checkpoint=x", "--kind", "hiccups"], ["-a", "checkpoint=x", "--draws", "0"]],
)
def test_wrong_arguments_are_refused(arguments: list[str], tmp_path: Path) -> None:
    command = ["measure", "attention", *arguments, "-d", "synthetic-a", "-o", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, HeartLLMError)

"""Figure 1: which vectors are taken, what a panel's file holds, and what is drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm_eval.figures import embedding_measures, embeddings, style
from heartllm_eval.figures.embedding_measures import Cloud
from heartllm_eval.figures.embedding_vectors import POSITIONS, Shown, clouds, untrained

REPORTS = ["sinus rhythm", "atrial fibrillation", "left axis deviation", "inferior myocardial infarction", "normal ecg"]


def shown(count: int = 30, width: int | None = None, seed: int = 0) -> list[Shown]:
    rng = np.random.default_rng(seed)
    return [
        Shown(
            f"patient {i // 2}",
            rng.integers(0, 36, 40) if width is None else rng.normal(size=(40, width)).astype(np.float16),
            f"{REPORTS[i % 5]} {REPORTS[i // 5 % 5]} pvc {'and normal ' * (i // 25)}",
        )
        for i in range(count)
    ]


@pytest.fixture
def panel() -> embeddings.Panel:
    """Of two clouds, without UMAP."""
    rng = np.random.default_rng(0)
    points = {m: rng.normal(size=(30, 2)).round(3).tolist() for m in ("ecg", "text")}
    numbers = [
        {"system": "HeartLLM", "level": level, "measure": name, "value": value, "low": low, "high": high, "chance": 0.1}
        for level in embeddings.LEVELS
        for name, value, low, high in (("probe AUC", 1.0, 0.99, 1.0), ("kNN mixing", 0.066, 0.05, 0.08))
    ]
    for name, value in (("recall@10", 0.031), ("commonest@10", 0.17), ("mapped@10", 0.39)):
        row = {"system": "HeartLLM", "level": "state", "measure": name, "value": value, "low": None, "high": None}
        numbers.append({**row, "chance": 0.033})
    about = {"dataset": "synthetic-a", "split": "test", "recordings": 30, "patients": 15, "seed": 0, "width": 32}
    return embeddings.Panel("HeartLLM", about, numbers, {"input": points, "state": points})


def others(panel: embeddings.Panel, *names: str) -> list[embeddings.Panel]:
    return [replace(panel, system=name) for name in names]


@pytest.mark.model
def test_vectors_at_the_input_are_rows_of_the_table(make_responder: Callable[..., Any]) -> None:
    responder = make_responder()
    part = clouds(responder, shown())["input"]
    vocabulary = responder.generator.vocabulary
    table = responder.generator.table.numpy()
    codes = {row.tobytes() for row in table[vocabulary.first_code :]}
    words = {row.tobytes() for row in table[: vocabulary.base]}
    assert {row.tobytes() for row in part.ecg} <= codes
    assert {row.tobytes() for row in part.text} <= words
    assert len(np.unique(part.ecg, axis=0)) == len(part.ecg) <= 36
    assert len(np.unique(part.text, axis=0)) == len(part.text)


@pytest.mark.model
def test_states_are_means_of_the_bodys_last_states(make_responder: Callable[..., Any]) -> None:
    import torch

    responder = make_responder()
    items = shown()
    part = clouds(responder, items)["state"]
    model, vocabulary = responder.generator.model, responder.generator.vocabulary
    ids = torch.tensor([[*vocabulary.bos, *vocabulary.ecg(items[3].codes)]])
    with torch.no_grad():
        states = model.body(inputs_embeds=model.table()[ids]).last_hidden_state[0, 2:-1]
    assert states.shape[0] == 40
    assert part.ecg[3] == pytest.approx(states.mean(0).numpy(), abs=1e-5)
    assert part.pairs is not None
    assert len(part.text) == len({item.report for item in items})
    assert [list(dict.fromkeys(i.report for i in items))[row] for row in part.pairs] == [i.report for i in items]


@pytest.mark.model
def test_soft_tokens_enter_as_the_projector_makes_them(make_responder: Callable[..., Any]) -> None:
    import torch

    responder = make_responder("continuous")
    items = shown(width=6)
    part = clouds(responder, items)["input"]
    assert part.ecg.shape == (30 * POSITIONS, 32)
    with torch.no_grad():
        values = torch.from_numpy(np.stack([item.codes for item in items]).astype(np.float32))
        words = responder.generator.table[: responder.generator.vocabulary.base]
        soft = responder.generator.model.soft(values, words).reshape(-1, 32).numpy()
    nearest = np.abs(soft[:, None] - part.ecg[None]).max(-1).min(0)
    assert nearest.max() < 1e-5


@pytest.mark.model
def test_the_untrained_control_has_other_weights_and_the_same_shape(make_responder: Callable[..., Any]) -> None:
    responder = make_responder()
    one, two = untrained(responder, 1), untrained(responder, 1)
    assert (one.generator.table == two.generator.table).all()
    assert one.generator.table.shape == responder.generator.table.shape
    assert not (one.generator.table == untrained(responder, 2).generator.table).all()
    assert one.front is responder.front


@pytest.mark.model
def test_a_blind_checkpoint_and_no_recordings_are_refused(make_responder: Callable[..., Any]) -> None:
    responder = make_responder()
    with pytest.raises(DataError, match="no recording has a report"):
        clouds(responder, [])
    responder.blind = True
    with pytest.raises(CheckpointError, match="blind control"):
        clouds(responder, shown())


@pytest.mark.slow
def test_umap_gives_the_same_points_twice_and_keeps_far_clouds_apart() -> None:
    pytest.importorskip("umap")
    rng = np.random.default_rng(0)
    names = tuple(map(str, range(40)))
    part = Cloud(rng.normal(size=(40, 8)) + 4, rng.normal(size=(40, 8)) - 4, names, names)
    one, two = (embedding_measures.umap_points(part, seed=3) for _ in range(2))
    assert (one == two).all()
    assert one.shape == (80, 2)
    assert one.std() == pytest.approx(1.0)
    ecg, text = one[:40], one[40:]
    assert np.linalg.norm(ecg.mean(0) - text.mean(0)) > ecg.std() + text.std()


def test_a_panel_is_measured_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "umap_points", lambda cloud, seed: np.concatenate([cloud.ecg, cloud.text])[:, :2])
    rng = np.random.default_rng(0)
    parts = {
        "input": Cloud(rng.normal(size=(40, 8)), rng.normal(size=(50, 8)) + 3, ("a",) * 40, ("b",) * 50),
        "state": Cloud(
            rng.normal(size=(40, 8)),
            rng.normal(size=(30, 8)),
            tuple(f"patient {i}" for i in range(40)),
            tuple(f"patient {i}" for i in range(30)),
            np.arange(40) % 30,
        ),
    }
    parts["input"] = replace(
        parts["input"], ecg_groups=tuple(map(str, range(40))), text_groups=tuple(map(str, range(40, 90)))
    )
    one = embeddings.measure("HeartLLM", parts, {"dataset": "synthetic-a"}, resamples=100)
    two = embeddings.measure("HeartLLM", parts, {"dataset": "synthetic-a"}, resamples=100)
    assert one == two
    assert len(one.points["input"]["ecg"]) == len(one.points["input"]["text"]) == 40
    assert {row["measure"] for row in one.numbers if row["level"] == "input"} == {
        "probe AUC",
        "kNN mixing",
        "centroid distance",
    }
    assert one.measured["width"] == 8
    assert embeddings.read_panel(embeddings.write_panel(one, tmp_path)) == one


def test_files_are_read_back_in_the_order_of_the_figure(panel: embeddings.Panel, tmp_path: Path) -> None:
    for part in others(panel, "untrained", "w/o TAB", "HeartLLM", "TEST", "Time-LLM"):
        embeddings.write_panel(part, tmp_path)
    assert (tmp_path / "w-o-tab.json").is_file()
    found = embeddings.read_panels(tmp_path)
    assert [part.system for part in found] == ["TEST", "Time-LLM", "HeartLLM", "untrained", "w/o TAB"]
    assert found[2] == panel


def test_what_is_no_panel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no embeddings"):
        embeddings.read_panels(tmp_path)
    for text in ("", "[]", '{"schema": 9}', '{"schema": 1, "system": "x"}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match="measure embeddings again"):
            embeddings.read_panels(tmp_path)


def test_the_figure_shows_every_point_and_the_numbers(panel: embeddings.Panel) -> None:
    panels = others(panel, "TEST", "CLIP", "HeartLLM", "untrained")
    figure = embeddings.draw_embeddings(panels)
    assert len(figure.axes) == 8
    assert [axes.get_title() for axes in figure.axes[:4]] == ["TEST", "CLIP", "HeartLLM", "untrained"]
    ecg, text = figure.axes[0].collections
    assert (ecg.get_gid(), text.get_gid()) == ("ecg", "text")
    assert np.asarray(ecg.get_offsets()).tolist() == panel.points["input"]["ecg"]
    assert np.asarray(text.get_offsets()).tolist() == panel.points["input"]["text"]
    assert figure.axes[0].get_xlabel() == "AUC 1.00 [.99, 1.00]\nmixing .07 [.05, .08]"
    assert figure.axes[4].get_xlabel().splitlines()[2:] == ["R@10 .03", "map@10 .39"]
    foot = figure.get_supxlabel()
    assert "30 synthetic ECGs" in foot
    assert "by chance .03, by the commonest reports .17" in foot
    assert style.smallest_font(figure) >= 7


def test_nothing_overlaps_or_leaves_the_page(panel: embeddings.Panel) -> None:
    five = ("TEST", "Time-LLM", "CLIP", "HeartLLM", "untrained")
    for names in (("HeartLLM",), ("HeartLLM", "untrained"), five, (*five, "w/o DISC", "ECG-Byte")):
        figure = embeddings.draw_embeddings(others(panel, *names))
        figure.draw_without_rendering()
        assert figure.get_figwidth() <= style.PAGE + 1e-9
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        for number, box in enumerate(boxes):
            assert box.x0 >= -1
            assert box.x1 <= figure.bbox.x1 + 1
            for other in boxes[:number]:
                assert not box.padded(-1).overlaps(other.padded(-1))


@pytest.mark.parametrize("key", ["dataset", "recordings", "seed", "width"])
def test_systems_measured_on_other_ground_are_refused(panel: embeddings.Panel, key: str) -> None:
    other = replace(panel, system="CLIP", measured={**panel.measured, key: 64})
    with pytest.raises(UsageError, match=f"{key} = .* CLIP with 64.*Measure all systems"):
        embeddings.draw_embeddings([panel, other])
    with pytest.raises(UsageError, match="no system"):
        embeddings.draw_embeddings([])


def test_the_csv_holds_all_numbers(panel: embeddings.Panel, tmp_path: Path) -> None:
    panels = others(panel, "HeartLLM", "CLIP")
    _, _, table = style.save(embeddings.draw_embeddings(panels), tmp_path, "embeddings", embeddings.rows(panels))
    assert len(style.read_csv(table)) == 2 * len(panel.numbers)


@pytest.mark.model
def test_the_command(make_responder: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from heartllm.responder import Responder
    from heartllm_eval.commands import measure, measure_embeddings

    app = typer.Typer()
    measure.register(app)
    monkeypatch.setattr(Responder, "load", lambda *about, **how: make_responder())
    monkeypatch.setattr(measure_embeddings, "read_shown", lambda *about: shown(40))
    monkeypatch.setattr(embeddings, "umap_points", lambda cloud, seed: np.zeros((len(cloud.ecg) * 2, 2)))
    told = CliRunner().invoke(
        app, ["measure", "embeddings", "-a", "checkpoint=x,untrained=true", "-d", "synthetic-a", "-o", str(tmp_path)]
    )
    assert told.exit_code == 0, told.output
    data = json.loads((tmp_path / "embeddings" / "untrained.json").read_text())
    assert data["measured"]["recordings"] == 40
    assert data["measured"]["untrained"] is True
    assert "recall@10" in told.output
    for wrong in ("", "checkpoint=x,colour=red", "checkpoint=x,untrained=maybe"):
        result = CliRunner().invoke(app, ["measure", "embeddings", "-a", wrong, "-d", "ptbxl", "-o", str(tmp_path)])
        assert isinstance(result.exception, UsageError)


def test_recordings_are_drawn_by_seed_and_bad_ones_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    from heartllm_eval.commands.measure_embeddings import read_shown

    entries = [SimpleNamespace(record_id=str(i), patient_id=str(i), report="r" if i % 3 else None) for i in range(60)]

    def encode(record: str) -> np.ndarray:
        if record == "7":
            raise DataError("is flat", where="7", remedy="None.")
        return np.array([int(record)])

    workspace: Any = SimpleNamespace(entries=lambda *about: list(entries), read=lambda dataset, record: record)
    responder: Any = SimpleNamespace(encode=encode)
    one = read_shown(responder, workspace, "ptbxl", "test", 10, 1)
    assert [item.patient for item in one] == [
        item.patient for item in read_shown(responder, workspace, "p", "t", 10, 1)
    ]
    assert len(one) == 10
    everyone = read_shown(responder, workspace, "ptbxl", "test", 100, 2)
    assert len(everyone) == 39
    assert "left out: 7: is flat" in capsys.readouterr().err

"""Figure 2: every number is the model's own, and every word fits its box."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("matplotlib")

from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text

from heartllm.errors import CheckpointError, DataError
from heartllm_eval.figures import framework, style
from heartllm_eval.figures.anatomy import Anatomy, Stage, load_anatomy, read_anatomy, read_stages, write_anatomy

ANATOMY = Anatomy(
    system="HeartLLM",
    checkpoint="f",
    leads=12,
    samples=5000,
    rate=500.0,
    frontend="fsq",
    network="plain",
    lead_weights="shared",
    frontend_parameters=304_356,
    decoder_parameters=911_196,
    positions=313,
    latent=4,
    levels=(6, 6, 6, 6),
    codes=1296,
    bits=323.6,
    text_rows=1024,
    special_rows=2,
    code_rows=1296,
    rows="digits",
    backbone="tiny",
    family="llama",
    layers=6,
    hidden=128,
    heads=4,
    language_parameters=1_417_088,
    trained_parameters=1_417_088,
    train="all",
    lora_rank=0,
    layout="ecg-first",
    parts=(("start", 1), ("features", 12), ("ECG", 313), ("question", 14)),
    stages=(
        Stage("tokenizer", 2500, {"seconds": 863.4, "valid_rmse_mv": 0.051, "valid_codes_used": 1250.0}),
        Stage("forecasting", 1600, {"seconds": 1800.0, "forecast": 0.8, "reading": 1.0}),
        Stage("tuning", 2600, {"answer": 0.4}),
    ),
    traces={lead: [0.0, 1.0, -0.4, 0.1] * 20 for lead in ("I", "II", "V1", "V5")},
    example=tuple(range(0, 1296, 65)),
)
SOFT = replace(
    ANATOMY,
    system="w/o DISC",
    frontend="continuous",
    network="",
    latent=64,
    levels=(),
    codes=None,
    bits=32_051.2,
    code_rows=0,
    special_rows=3,
    rows="",
    example=(),
)
LARGE = replace(
    ANATOMY,
    network="paper",
    lead_weights="separate",
    backbone="meta-llama/Llama-3.2-3B",
    text_rows=128_256,
    layers=28,
    hidden=3072,
    language_parameters=3_220_000_000,
    trained_parameters=101_000_000,
    train="lora",
    lora_rank=64,
    layout="question-first",
    parts=(("start", 1), ("features", 12), ("question", 14), ("ECG", 313), ("answer mark", 2)),
)
BYTES = replace(ANATOMY, frontend="ecg_byte", network="", levels=(), codes=4096, code_rows=4096, rows="", stages=())


def words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_it_says_the_numbers_of_the_model() -> None:
    said = "\n".join(words(framework.draw_framework(ANATOMY)))
    for part in (
        "12 leads, 10 s at 500 Hz",
        "304 k parameters",
        "313 × 4 numbers",
        "levels 6 · 6 · 6 · 6",
        "1,296 codes",
        "313 codes, 324 bit/s",
        "1,296 ECG codes\n(sums of digits)",
        "1,024 text tokens",
        "6 layers of 128",
        "1.4 M parameters",
        "all trained",
        "12 tokens",
        "313 codes, 32 ms each",
        "2,500 steps, 14 min",
        "error 0.051 mV RMS, 1,250 codes in use",
        "goal: next ECG code, findings",
        "2,600 steps",
        "the ECG once, then each of its questions",
        "ECG: synthetic",
    ):
        assert part in said


def test_other_numbers_are_said_of_other_models() -> None:
    said = "\n".join(words(framework.draw_framework(SOFT)))
    assert "64 → 128" in said
    assert "313 soft tokens, 32 ms each" in said
    assert "ECG codes" not in said
    said = "\n".join(words(framework.draw_framework(LARGE)))
    for part in (
        "28 layers of 3072",
        "101 M trained (lora)",
        "ECG rows, LoRA of rank 64",
        "the question, then the ECG",
    ):
        assert part in said
    said = "\n".join(words(framework.draw_framework(BYTES)))
    assert "Code table" in said
    assert "ms each" not in said
    assert "1  ECG tokenizer" not in said


def test_the_vocabularys_bar_is_in_proportion() -> None:
    figure = framework.draw_framework(ANATOMY)
    parts = {p.get_gid(): p.get_height() for p in figure.findobj(Rectangle) if p.get_gid() in ("ECG codes", "marks")}
    assert parts["ECG codes"] / parts["marks"] == pytest.approx(1296 / 2)


@pytest.mark.parametrize("anatomy", [ANATOMY, SOFT, LARGE, BYTES], ids=["tiny", "soft", "large", "bytes"])
def test_every_word_fits_its_box_and_none_lies_over_another(anatomy: Anatomy) -> None:
    figure = framework.draw_framework(anatomy)
    figure.draw_without_rendering()
    boxes = [patch.get_window_extent() for patch in figure.findobj(FancyBboxPatch)]
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    extents = [text.get_window_extent() for text in texts]
    for text, extent in zip(texts, extents, strict=True):
        middle = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
        for box in boxes:
            if box.contains(*middle):
                assert box.x0 <= extent.x0, text.get_text()
                assert box.x1 >= extent.x1, text.get_text()
        assert extent.x0 >= 0, text.get_text()
        assert extent.x1 <= figure.bbox.x1, text.get_text()
    for number, one in enumerate(extents):
        for other, name in zip(extents[:number], texts, strict=False):
            assert not one.padded(-1).overlaps(other.padded(-1)), (texts[number].get_text(), name.get_text())
    for number, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other) for other in boxes[:number])
    assert style.smallest_font(figure) >= 7


def test_the_same_bytes_and_the_numbers_beside(tmp_path: Path) -> None:
    one, two = (
        style.save(framework.draw_framework(ANATOMY), tmp_path / name, "f", framework.rows(ANATOMY)) for name in "ab"
    )
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()
    found = {row["part"]: row["value"] for row in style.read_csv(one[2])}
    assert found["codes"] == "1296"
    assert found["levels"] == "6 6 6 6"
    assert found["prompt.ECG"] == "313"
    assert found["tuning.steps"] == "2600"
    assert not {"traces", "example"} & found.keys()


def test_a_file_of_it_is_read_back_and_others_refused(tmp_path: Path) -> None:
    path = write_anatomy(ANATOMY, tmp_path / "data" / "framework.json")
    assert load_anatomy(path) == ANATOMY
    for text in ("", "[]", '{"schema": 7}', path.read_text().replace('"layers": 6,', "")):
        path.write_text(text)
        with pytest.raises(DataError, match="measure framework again"):
            load_anatomy(path)


def test_stages_are_the_last_lines_of_the_logs(tmp_path: Path) -> None:
    assert read_stages(tmp_path) == ()
    (tmp_path / "training").mkdir()
    log = tmp_path / "training" / "tuning.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 9, "loss": 1.5, "note": "x"}\n')
    assert read_stages(tmp_path) == (Stage("tuning", 9, {"step": 9.0, "loss": 1.5}),)
    for text in ("", "not json\n", '{"loss": 1}\n', "[1]\n"):
        log.write_text(text)
        with pytest.raises(CheckpointError, match="no training log"):
            read_stages(tmp_path)


@pytest.mark.model
def test_shapes_and_counts_are_read_from_the_model(make_responder: Callable[..., Any], tmp_path: Path) -> None:
    responder = make_responder()
    found = read_anatomy(responder, tmp_path)
    front, model = responder.front, responder.generator.model
    assert found.frontend_parameters + found.decoder_parameters == sum(p.numel() for p in front.parameters())
    assert found.decoder_parameters == sum(p.numel() for p in front.decoder.parameters())
    assert found.language_parameters == sum(p.numel() for p in model.parameters())
    assert (found.positions, found.latent, found.levels, found.codes) == (313, 4, (3, 3, 2, 2), 36)
    assert found.text_rows + found.special_rows + found.code_rows == len(responder.generator.table)
    assert (found.layers, found.hidden, found.rows) == (2, 32, "digits")
    counts = dict(found.parts)
    assert counts["ECG"] == 313
    assert counts["start"] == 1
    assert counts["features"] > 5
    assert len(found.traces["II"]) == 313
    assert all(0 <= code < 36 for code in found.example)
    framework.draw_framework(found)


@pytest.mark.model
def test_soft_tokens_have_no_codes(make_responder: Callable[..., Any], tmp_path: Path) -> None:
    found = read_anatomy(make_responder("continuous"), tmp_path)
    assert (found.codes, found.latent, found.positions, found.code_rows, found.example) == (None, 6, 313, 0, ())
    assert found.text_rows + found.special_rows <= 330
    framework.draw_framework(found)


@pytest.mark.model
def test_the_command(make_responder: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from heartllm.responder import Responder
    from heartllm_eval.commands import measure

    app = typer.Typer()
    measure.register(app)
    monkeypatch.setattr(Responder, "load", lambda *about, **how: make_responder())
    told = CliRunner().invoke(app, ["measure", "framework", "-c", str(tmp_path), "-o", str(tmp_path)])
    assert told.exit_code == 0, told.output
    assert json.loads((tmp_path / "framework.json").read_text())["codes"] == 36
    assert "language_parameters" in told.output

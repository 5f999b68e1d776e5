"""The whole path by its commands for front-ends other than the codec: only the recipe differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner, Result

from heartllm.cli import app
from heartllm.errors import CheckpointError, UsageError

COMMON = """
views = 2
[tokenizer]
batch = 2
crop = 320
[tokenizer.codec]
decoder_width = 16
[tokenizer.loop]
steps = 4
evaluate_every = 4
[language.tiny]
hidden = 32
layers = 2
heads = 2
feedforward = 48
vocabulary = 400
[questions]
per_cell = 2
draws = 2
min_positives = 1
min_findings = 2
[forecasting]
batch = 2
valid_ecgs = 2
[forecasting.weights]
answer = 0.0
forecast = 0.2
reading = 1.0
[forecasting.drawing]
questions = 0
[forecasting.loop]
steps = 30
evaluate_every = 30
[tuning]
batch = 2
valid_ecgs = 2
[tuning.drawing]
questions = 4
[tuning.loop]
steps = 30
learning_rate = 3e-3
evaluate_every = 10
"""
KINDS = {
    "continuous": "[frontend.continuous.config]\nwidth = 8",
    "time_llm": "[frontend.time_llm.config]\nprototypes = 10\nembedding = 16\nrows = 400",
    "ecg_byte": "[frontend.ecg_byte.config]\nmerges = 40",
    "test": "[frontend.test]\nbatch = 4\n[frontend.test.config]\nwidth = 32\n[frontend.test.loop]\nsteps = 2",
    "clip": (
        "[frontend.clip]\nbatch = 8\n[frontend.clip.config]\nchannels = 4\nembedding = 16\ntext_width = 32\n"
        "[frontend.clip.loop]\nsteps = 2\nevaluate_every = 2"
    ),
}


def command(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if code == 0 and result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    command("data", "synth", "a", "--recordings", 40, "--seed", 5, "--workers", 1, "--out", folder / "data")
    return folder


@pytest.fixture(scope="module")
def blind(site: Path) -> Path:
    """The codec's recipe, and a blind control of it, as the text side."""
    (site / "fsq.toml").write_text(COMMON, encoding="utf-8")
    common = ("-d", "synthetic-a", "--data_root", site / "data", "--recipe", site / "fsq.toml")
    command("tokenizer", *common, "-o", site / "fsq")
    command("tokenize", *common, "--codec", site / "fsq", "-o", site / "fsq-tokens")
    tokens = ("--tokens", site / "fsq-tokens")
    command("tune", *common, *tokens, "--from", site / "fsq", "--blind", "-o", site / "blind")
    return site / "blind"


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "continuous" else pytest.mark.slow) for kind in KINDS]
)
def test_a_kind_goes_through_all_stages(site: Path, blind: Path, kind: str) -> None:
    from heartllm.checkpoint import load_frontend, load_language, verify

    recipe, folder = site / f"{kind}.toml", site / kind
    recipe.write_text(f'base = "fsq.toml"\n[frontend]\nkind = "{kind}"\n{KINDS[kind]}\n', encoding="utf-8")
    common = ("-d", "synthetic-a", "--data_root", site / "data", "--recipe", recipe)
    text = ("--text", blind) if kind in ("test", "clip") else ()
    command("tokenizer", *common, *text, "-o", folder / "front")
    command("tokenize", *common, "--frontend", folder / "front", "-o", folder / "tokens")
    tokens = ("--tokens", folder / "tokens")
    command("pretrain", *common, *tokens, "--frontend", folder / "front", "-o", folder / "forecast")
    command("tune", *common, *tokens, "--from", folder / "forecast", "-o", folder / "checkpoint")
    verify(folder / "checkpoint")
    front, digest = load_frontend(folder / "checkpoint")
    model, config = load_language(folder / "checkpoint")
    manifest = json.loads((folder / "tokens/synthetic-a/train/manifest.json").read_text(encoding="utf-8"))
    assert (front.kind, config.frontend, config.stage) == (kind, kind, "tuning")
    assert (digest, manifest["holds"]) == (manifest["codec"], "codes" if front.width is None else "values")
    assert (model.soft is None) == (front.width is None)
    log = [json.loads(line) for line in (folder / "checkpoint/training/tuning.jsonl").read_text().splitlines()]
    assert log[-1]["valid_loss"] < log[0]["valid_loss"]
    record = next((site / "data/synthetic-a/records500").rglob("*.hea")).with_suffix("")
    command("ask", "--checkpoint", folder / "checkpoint", "--record", record, "Does this ECG show sinus rhythm?")
    if front.width is not None:
        forecast = [json.loads(line) for line in (folder / "forecast/training/forecasting.jsonl").open()]
        assert all(line["forecast"] == 0.0 for line in forecast)
        with pytest.raises(CheckpointError, match=r"soft tokens.*heartllm ask"):
            command("export", "--checkpoint", folder / "checkpoint", "--out", folder / "hf")


def test_what_belongs_to_another_kind_is_refused(site: Path, blind: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "continuous.toml"
    recipe.write_text((site / "fsq.toml").read_text() + '[frontend]\nkind = "continuous"\n', encoding="utf-8")
    common = ("-d", "synthetic-a", "--data_root", site / "data")
    mine, theirs = (*common, "--recipe", recipe), (*common, "--recipe", site / "fsq.toml")
    with pytest.raises(UsageError, match=r"front-end 'fsq', but the recipe says 'continuous'"):
        command("tokenize", *mine, "--frontend", site / "fsq", "-o", tmp_path / "tokens")
    command("tokenizer", *mine, "-o", tmp_path / "front")
    with pytest.raises(CheckpointError, match="was made by front-end"):
        command(
            *("pretrain", *mine, "--tokens", site / "fsq-tokens"),
            *("--frontend", tmp_path / "front", "-o", tmp_path / "forecast"),
        )
    with pytest.raises(CheckpointError, match="'continuous', not the codec"):
        command("codec-report", "-d", "synthetic-a", "--data_root", site / "data", "--codec", tmp_path / "front")
    windows = tmp_path / "windows.toml"
    windows.write_text('base = "continuous.toml"\n[forecasting]\nwindows = "authors"\n', encoding="utf-8")
    command("tokenize", *mine, "--frontend", tmp_path / "front", "-o", tmp_path / "tokens")
    at = ("--tokens", tmp_path / "tokens", "--frontend", tmp_path / "front", "-o", tmp_path / "forecast")
    with pytest.raises(UsageError, match="forecasting windows need codes"):
        command("pretrain", *common, "--recipe", windows, *at)
    without = tmp_path / "without.toml"
    without.write_text(f'base = "{(site / "fsq.toml").as_posix()}"\npretrain = false\n', encoding="utf-8")
    fsq = ("--tokens", site / "fsq-tokens", "--frontend", site / "fsq", "-o", tmp_path / "none")
    with pytest.raises(UsageError, match="no first stage"):
        command("pretrain", *common, "--recipe", without, *fsq)
    with pytest.raises(UsageError, match="'cuda:77' cannot be used here"):
        command("pretrain", *theirs, *fsq, "--device", "cuda:77")


def test_a_checkpoint_with_another_front_end_is_refused(site: Path, blind: Path, tmp_path: Path) -> None:
    import shutil

    from heartllm.checkpoint import load_language, save_frontend
    from heartllm.frontends.continuous import Continuous, ContinuousConfig

    shutil.copytree(blind, tmp_path / "mixed")
    for name in ("codec.toml", "codec.safetensors"):
        (tmp_path / "mixed" / name).unlink()
    with pytest.raises(CheckpointError, match="holds no front-end"):
        load_language(tmp_path / "mixed")
    save_frontend(Continuous(ContinuousConfig(width=4)), tmp_path / "mixed")
    with pytest.raises(CheckpointError, match=r"the front-end is continuous.*checkpoint\.toml says fsq"):
        load_language(tmp_path / "mixed")
    path = tmp_path / "mixed/frontend.toml"
    text = path.read_text()
    for wrong, message in (
        (text.replace("width", "widht"), "widht"),
        ('kind = "fqs"', "fqs"),
        ("a = 1", "not a front"),
    ):
        path.write_text(wrong)
        with pytest.raises((UsageError, CheckpointError), match=message):
            load_language(tmp_path / "mixed")

"""The whole path by its commands, at the smallest size: recordings -> codec -> codes -> language model -> answers."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from typer.testing import CliRunner, Result

from heartllm.checkpoint import load_language
from heartllm.cli import app
from heartllm.data.answers import FILE, read_answers
from heartllm.errors import CheckpointError, DataError, UsageError

RECIPE = """
views = 2
repeat = ["synthetic-a=2"]
[tokenizer]
batch = 2
crop = 320
[tokenizer.codec]
decoder_width = 16
[tokenizer.loop]
steps = 3
evaluate_every = 3
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
steps = 2
evaluate_every = 2
[tuning]
batch = 2
valid_ecgs = 2
[tuning.drawing]
questions = 4
[tuning.loop]
steps = 2
evaluate_every = 2
"""


def command(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if code == 0 and result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a synthetic site and every stage's result."""
    folder = tmp_path_factory.mktemp("run")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    command("data", "synth", "a", "--recordings", 60, "--seed", 5, "--workers", 1, "--out", folder / "data")
    common = ("-d", "synthetic-a", "--data_root", folder / "data", "--recipe", recipe)
    command("tokenizer", *common, "-o", folder / "tokenizer")
    command("tokenize", *common, "--codec", folder / "tokenizer", "-o", folder / "tokens")
    tokens = ("--tokens", folder / "tokens")
    command("pretrain", *common, *tokens, "--codec", folder / "tokenizer", "-o", folder / "forecast")
    command("tune", *common, *tokens, "--from", folder / "forecast", "-o", folder / "checkpoint")
    command("tune", *common, *tokens, "--from", folder / "tokenizer", "--blind", "-o", folder / "checkpoint/blind")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def common_of(run: Path) -> tuple[object, ...]:
    return ("-d", "synthetic-a", "--data_root", run / "data", "--recipe", run / "recipe.toml")


def record_of(run: Path) -> Path:
    return next((run / "data/synthetic-a/records500").rglob("*.hea")).with_suffix("")


def test_every_stage_leaves_a_checkpoint_that_verifies(run: Path) -> None:
    from heartllm.checkpoint import load_language, verify

    for name in ("tokenizer", "forecast", "checkpoint", "checkpoint/blind"):
        assert len(verify(run / name)) == 64
    _, config = load_language(run / "checkpoint")
    assert config.stage == "tuning"
    assert not config.blind
    assert load_language(run / "checkpoint/blind")[1].blind
    stages = {path.stem for path in (run / "checkpoint/training").glob("*.jsonl")}
    assert stages == {"tokenizer", "forecasting", "tuning"}
    seen = read_answers(run / "checkpoint" / FILE)
    assert {"yes", "no"} <= seen.keys()
    assert FILE in (run / "checkpoint" / "manifest.json").read_text()
    assert not (run / "forecast" / FILE).exists()


def test_the_same_commands_again_change_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in (run / "checkpoint").rglob("*") if path.is_file()}
    out = command(
        "tune", *common_of(run), "--tokens", run / "tokens", "--from", run / "forecast", "-o", run / "checkpoint"
    )
    assert "already" in out.output
    assert before == {path: path.read_bytes() for path in (run / "checkpoint").rglob("*") if path.is_file()}


def test_only_training_recordings_have_views(run: Path) -> None:
    shapes = {
        split: json.loads((run / "tokens/synthetic-a" / split / "manifest.json").read_text())["shape"]
        for split in ("train", "valid", "test")
    }
    assert shapes["train"][1:] == [2, 313]
    assert shapes["valid"][1:] == shapes["test"][1:] == [1, 313]
    assert sum(shape[0] for shape in shapes.values()) == 60


def test_ask_answers_and_draws(run: Path, tmp_path: Path) -> None:
    plot = tmp_path / "ecg.png"
    question = "Does this ECG show symptoms of sinus bradycardia?"
    command("ask", "--checkpoint", run / "checkpoint", "--record", record_of(run), "--plot", plot, question)
    assert plot.stat().st_size > 10_000


def test_gap_prints_three_readers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartllm.training import gap

    monkeypatch.setattr(gap, "choose_findings", lambda train, test: ["sinus rhythm", "sinus bradycardia"])
    folders = ("-c", run / "checkpoint", "--tokens", run / "tokens", "--data_root", run / "data")
    table = command("gap", "-d", "synthetic-a", *folders, "--steps", 2).output
    assert all(reader in table for reader in ("(a)", "(b)", "(c)"))
    assert "sinus rhythm" in table


def test_a_store_of_another_codec_is_refused(run: Path, tmp_path: Path) -> None:
    from heartllm.checkpoint import load_codec, save_frontend, write_manifest

    codec, _ = load_codec(run / "tokenizer")
    codec.lead_scale.mul_(2)
    save_frontend(codec, tmp_path / "other")
    write_manifest(tmp_path / "other")
    with pytest.raises(CheckpointError, match="made by front-end"):
        command(
            "pretrain", *common_of(run), "--tokens", run / "tokens", "--codec", tmp_path / "other", "-o", tmp_path / "f"
        )


def test_recordings_that_cannot_be_read_are_left_out_up_to_a_share(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "data", tmp_path / "data")
    next((tmp_path / "data/synthetic-a/records500").rglob("*.dat")).write_bytes(b"short")
    common = ("-d", "synthetic-a", "--data_root", tmp_path / "data", "--recipe", run / "recipe.toml")
    strict = ("tokenize", *common, "--codec", run / "tokenizer", "-o", tmp_path / "strict")
    with pytest.raises(DataError, match="cannot be read, over"):
        command(*strict)
    with pytest.raises(DataError, match="not readable when it was tokenised"):  # once is not forgiven the second time
        command(*strict)
    parts = (*strict[:-1], tmp_path / "parts")
    assert "1 of them unreadable" in command(*parts, "--shard", "1/1").output
    with pytest.raises(DataError, match="not readable when it was tokenised"):
        command(*parts, "--merge")
    command("tokenize", *common, "--codec", run / "tokenizer", "-o", tmp_path / "t", "--max_bad_share", 0.5)
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "t").rglob("manifest.json")]
    assert sum(manifest["left_out"] for manifest in manifests) == 1


def test_tokens_in_shards_are_those_of_one_run(run: Path, tmp_path: Path) -> None:
    words = ("tokenize", *common_of(run), "--codec", run / "tokenizer", "-o", tmp_path / "t")
    assert "shard 2/2, 0 of" in command(*words, "--shard", "2/2").output  # 64 recordings a block: it has none
    with pytest.raises(CheckpointError, match=r"train/unfinished: shard 1/2 missing"):
        command(*words, "--merge")
    command(*words, "--shard", "1/2")
    shutil.move(tmp_path / "t/synthetic-a/valid/unfinished/shard-1-of-2", tmp_path / "away")
    with pytest.raises(CheckpointError, match=r"valid/unfinished: shard 1/2 missing"):
        command(*words, "--merge")
    assert not (tmp_path / "t/synthetic-a/train/manifest.json").exists()  # all splits are checked before one is joined
    shutil.move(tmp_path / "away", tmp_path / "t/synthetic-a/valid/unfinished/shard-1-of-2")
    for again in (command(*words, "--merge"), command(*words, "--merge"), command(*words, "--shard", "1/2")):
        assert again.output.count("recordings, ") == 3

    def files(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert files(tmp_path / "t") == files(run / "tokens")
    with pytest.raises(UsageError, match=r"--shard: cannot be given together with --merge"):
        command(*words, "--merge", "--shard", "1/2")
    with pytest.raises(UsageError, match=r"--shard: '9/8' is no shard"):
        command(*words, "--shard", "9/8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("vews = 2", "Did you mean 'views'"),
        ("views = 'two'", "expected int"),
        ('repeat = ["ptbxl"]', "name=count"),
        ("views = = 2", "not valid TOML"),
    ],
)
def test_bad_recipes_name_the_file_and_the_remedy(tmp_path: Path, change: str, message: str) -> None:
    from heartllm.recipe import load_recipe

    path = tmp_path / "mine.toml"
    path.write_text(change, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_recipe(str(path)).repeats()


def test_bundled_recipes_load() -> None:
    from heartllm.recipe import load_recipe

    assert load_recipe("tiny").language.backbone == "tiny"
    with pytest.raises(UsageError, match="Bundled: "):
        load_recipe("teeny")


def test_a_missing_record_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing-here"):
        command("ask", "--checkpoint", run / "checkpoint", "--record", tmp_path / "nothing-here", "Is it there?")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        command("ask", "--checkpoint", tmp_path, "--record", record_of(run), "Is it there?")


def test_a_model_begins_as_another_ones_text_model(run: Path, tmp_path: Path) -> None:
    still = tmp_path / "still.toml"
    still.write_text(
        RECIPE.replace("evaluate_every = 2\n", "evaluate_every = 2\nlearning_rate = 1e-12\nweight_decay = 0.0\n"),
        "utf-8",
    )
    common = (*common_of(run)[:-1], still, "--tokens", run / "tokens")
    command("tune", *common, "--from", run / "tokenizer", "--text", run / "checkpoint", "-o", tmp_path / "begun")
    before, begun = (load_language(folder)[0] for folder in (run / "checkpoint", tmp_path / "begun"))
    for (name, a), (_, b) in zip(before.backbone.named_parameters(), begun.backbone.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert not torch.equal(before.rows(), begun.rows())  # the ECG's rows are new
    assert (begun.vocabulary.text("sinus rhythm")) == before.vocabulary.text("sinus rhythm")

    words = ("tune", *common, "--from", run / "forecast", "--text", run / "checkpoint", "-o", tmp_path / "no")
    with pytest.raises(UsageError, match="has its language model already"):
        command(*words)
    still.write_text(RECIPE.replace("hidden = 32", "hidden = 16"), "utf-8")
    with pytest.raises(UsageError, match="another shape"):
        command("tune", *common, "--from", run / "tokenizer", "--text", run / "checkpoint", "-o", tmp_path / "no")


@pytest.mark.slow
@pytest.mark.parametrize("config", ["one-machine", "machines", "fsdp"])
def test_accelerate_starts_a_stage_by_a_shipped_configuration(run: Path, tmp_path: Path, config: str) -> None:
    """Two processes on the CPU, cut or not, of one launcher or of two, end where one process does."""
    shipped = Path(__file__).parents[2] / "docs" / "accelerate" / f"{config}.yaml"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["accelerate.commands.launch", "--config_file", shipped, "--num_processes", 2]
    launch += ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
    tune = ["heartllm.cli", "tune", *common_of(run), "--tokens", run / "tokens", "--from", run / "forecast"]
    started = []
    for machine in range(2 if config == "machines" else 1):
        words = [sys.executable, "-m", *launch, "--machine_rank", machine, "-m", *tune]
        words += ["-o", tmp_path / "out", "--device", "cpu"]
        started.append(subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, text=True))
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    folders = (tmp_path / "out", run / "checkpoint")
    found, alone = (json.loads((f / "training/tuning.jsonl").read_text().splitlines()[-1]) for f in folders)
    assert {**found, "seconds": 0} == pytest.approx({**alone, "seconds": 0}, rel=1e-3, abs=1e-4)
    one, other = (dict(load_language(folder)[0].named_parameters()) for folder in folders)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-2, atol=1e-3, msg=name)

"""The driver of the paper's plan, with programs that only pretend to train."""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from heartllm.errors import DataError, UsageError
from heartllm_eval import cli
from heartllm_eval.paper import driver, plan, stages, training_facts

PLAN = """
main = "ours"
[[size]]
name = "small"
about = "nothing"
[[size.sites]]
name = "a"
recordings = 10
seed = 7
[[size.regime]]
name = "joint"
train = ["synthetic-a"]
suites = ["synthetic_a_qa"]
[size.hours]
frontend = 1.0
tokens = 0.5
forecasting = 2.0
tuning = 3.0
blind = 1.5
asking = 0.5
[[size]]
name = "large"
about = "unmeasured"
base = "large.toml"
changes = "changes"
[[size.regime]]
name = "joint"
train = ["ptbxl"]
suites = ["ptbxl_qa"]
[[row]]
name = "ours"
label = "Ours"
kind = "system"
recipe = "tiny"
seeds = 2
controls = ["blind", "shuffled"]
[[row]]
name = "clip"
label = "CLIP"
kind = "rival"
recipe = "recipes/clip.toml"
text = true
[[row]]
name = "no_ft"
label = "w/o FT"
kind = "ablation"
recipe = "recipes/no_ft.toml"
frontend = "ours"
[[row]]
name = "half"
label = "half"
kind = "variant"
recipe = "tiny"
frontend = "ours"
pretrained = "ours"
"""
# Makes what the real program would, and fails where the file FAIL names a word of the command.
FAKE = """
import json, pathlib, struct, sys
arguments = sys.argv[1:]
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as stream:
    stream.write(json.dumps(arguments) + "\\n")
fail = here / "FAIL"
if fail.exists() and any(word in " ".join(arguments) for word in fail.read_text().split()):
    sys.exit("error: it broke")
flag = "--output_path" if "--output_path" in arguments else "--out"
out = pathlib.Path(arguments[arguments.index(flag) + 1])
if arguments[0] == "data":
    (out / f"synthetic-{arguments[2]}").mkdir(parents=True)
elif arguments[0] == "tokenize":
    (out / arguments[arguments.index("--dataset") + 1]).mkdir(parents=True)
elif arguments[0] == "run":
    out.mkdir(parents=True); (out / "run.json").write_text("{}")
elif arguments[0] == "freeze":
    (out / "synthetic_a_qa").mkdir(parents=True); (out / "synthetic_a_qa" / "manifest.json").write_text("{}")
else:
    (out / "training").mkdir(parents=True)
    (out / "manifest.json").write_text("{}")
    a = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    b = {"dtype": "F32", "shape": [5], "data_offsets": [48, 68]}
    header = json.dumps({"a": a, "b": b}).encode()
    (out / "language.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(68))
    line = {"step": 100, "seconds": 1800.0, "positions": 50.0}
    (out / "training" / "tuning.jsonl").write_text(json.dumps(line) + "\\n")
"""


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> stages.Setting:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "changes").mkdir()
    (tmp_path / "paper.toml").write_text(PLAN)
    (tmp_path / "recipes" / "clip.toml").write_text('base = "tiny"\nviews = 2\n[frontend]\nkind = "clip"\n')
    (tmp_path / "recipes" / "no_ft.toml").write_text('base = "clip.toml"\npretrain = false\n[frontend]\nkind = "fsq"\n')
    (tmp_path / "large.toml").write_text('[language]\nbackbone = "large"\n[tuning.loop]\nsteps = 9\n')
    (tmp_path / "changes" / "clip.toml").write_text("[frontend.clip]\nbatch = 7\n")
    (tmp_path / "fake.py").write_text(FAKE)
    for name in ("HEARTLLM", "HARNESS"):
        monkeypatch.setattr(stages, name, (sys.executable, "-I", "-S", str(tmp_path / "fake.py")))
    loaded = plan.load(tmp_path / "paper.toml")
    return stages.Setting(loaded, loaded.size(), tmp_path / "work", tmp_path / "runs", "cpu")


Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["heartllm-eval", "paper", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return call


def calls(setting: stages.Setting) -> list[list[str]]:
    path = setting.plan.path.parent / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def quiet(line: str) -> None:
    pass


def test_each_job_comes_once_and_after_what_it_needs(setting: stages.Setting) -> None:
    jobs = stages.jobs(setting)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for number, job in enumerate(jobs):
        assert set(job.needs) <= set(names[:number]), job.name
    # One front-end and one store for ours, w/o FT and half; CLIP has its own, trained against the blind control.
    assert [job.name for job in jobs if job.stage == "front-end"] == ["ours/joint/front-end", "clip/joint/front-end"]
    assert "ours/joint/seed-0/blind" in next(job for job in jobs if job.name == "clip/joint/front-end").needs
    trained = {job.name for job in jobs if job.stage == "forecasting"}
    assert trained == {"ours/joint/seed-0/forecast", "ours/joint/seed-1/forecast", "clip/joint/seed-0/forecast"}
    half = next(job for job in jobs if job.name == "half/joint/seed-0/tune")
    assert "ours/joint/seed-0/forecast" in half.needs
    asked = next(job for job in jobs if job.name == "ours/joint/seed-1/ask")
    assert asked.command[asked.command.index("--blind") + 1].endswith("models/ours/joint/seed-1/blind")


def test_only_some_rows_with_what_they_need(setting: stages.Setting) -> None:
    names = [job.name for job in stages.jobs(setting, frozenset({"no_ft"}))]
    assert names == [
        "data/synthetic-a", "ours/joint/front-end", "ours/joint/tokens", "no_ft/joint/seed-0/tune",
        "no_ft/joint/seed-0/ask", "no_ft/joint/seed-0/freeze",
    ]  # fmt: skip


def test_only_some_regimes_and_the_first_seeds(setting: stages.Setting, command: Command) -> None:
    once = stages.jobs(setting, seeds=1)
    assert {job.seed for job in stages.jobs(setting)} == {0, 1}
    assert {job.seed for job in once} == {0}
    assert [job.name for job in stages.jobs(setting, regimes=frozenset({"joint"}))] == [
        job.name for job in stages.jobs(setting)
    ]
    assert stages.jobs(setting, regimes=frozenset({"elsewhere"})) == []
    assert command(str(setting.plan.path), "--regimes", "elsewhere", "--dry_run") == 2


def test_a_given_text_model_is_not_trained(setting: stages.Setting) -> None:
    given = setting.plan.path
    given.write_text(PLAN.replace('name = "joint"', 'name = "joint"\ntext = "there/blind"', 1))
    loaded = plan.load(given)
    begun = stages.Setting(loaded, loaded.size(), setting.work, setting.frozen, "cpu")
    with pytest.raises(UsageError, match="there/blind is no checkpoint"):
        stages.jobs(begun)
    (given.parent / "there/blind").mkdir(parents=True)
    (given.parent / "there/blind/manifest.json").write_text("{}")
    jobs = {job.name: job for job in stages.jobs(begun)}
    folder = str(given.parent / "there/blind")
    for name in ("ours/joint/seed-0/forecast", "ours/joint/seed-0/blind", "no_ft/joint/seed-0/tune"):
        assert jobs[name].command[jobs[name].command.index("--text") + 1] == folder, name
    assert jobs["clip/joint/front-end"].command[-3:-1] == (folder, "--out")
    assert not [job for job in jobs.values() if job.stage == "text"]
    before = {job.name: job.key for job in stages.jobs(setting)}
    assert jobs["ours/joint/seed-0/forecast"].key != before["ours/joint/seed-0/forecast"]


def test_a_checkpoint_that_is_there_is_asked_and_not_trained(setting: stages.Setting) -> None:
    row = '[[row]]\nname = "given"\nlabel = "Given"\nkind = "variant"\nrecipe = "tiny"\ncheckpoint = "there/model"\n'
    setting.plan.path.write_text(PLAN + row)
    given = stages.Setting(plan.load(setting.plan.path), setting.size, setting.work, setting.frozen, "cpu")
    jobs = stages.jobs(given, frozenset({"given"}))
    assert [job.stage for job in jobs] == ["asking", "freezing"]
    assert f"checkpoint={setting.plan.path.parent / 'there/model'}" in jobs[0].command


def test_every_row_begins_as_the_text_model_of_its_regime(setting: stages.Setting) -> None:
    (setting.plan.path.parent / "text.toml").write_text('base = "tiny"\n[tuning.loop]\nsteps = 7\n')
    given = setting.plan.path
    given.write_text(PLAN.replace('about = "nothing"', 'about = "nothing"\ntext = "text.toml"'))
    loaded = plan.load(given)
    begun = stages.Setting(loaded, loaded.size(), setting.work, setting.frozen, "cpu")
    jobs = {job.name: job for job in stages.jobs(begun)}
    text = jobs["text/joint"]
    assert "--blind" in text.command
    assert "--text" not in text.command
    folder = str(text.makes.parent)
    first = [job for job in jobs.values() if job.stage in ("forecasting", "blind")] + [jobs["no_ft/joint/seed-0/tune"]]
    for job in first:
        assert job.command[job.command.index("--text") + 1] == folder, job.name
        assert "text/joint" in job.needs
    assert "--text" not in jobs["ours/joint/seed-0/tune"].command  # goes on from forecasting
    assert jobs["clip/joint/front-end"].command[-3:-1] == (folder, "--out")
    outcome = driver.carry_out(begun, list(jobs.values()), say=quiet)
    assert not outcome.failed
    assert "steps = 7" in (setting.work / "recipes" / "text.toml").read_text()
    assert "text models: text/joint" in driver.plan_text(
        stages.Setting(loaded, loaded.size(), setting.work / "new", setting.frozen, "cpu"), list(jobs.values())
    )


def test_only_what_is_not_frozen_yet(setting: stages.Setting, command: Command) -> None:
    driver.carry_out(setting, stages.jobs(setting, frozenset({"ours"})), say=quiet)
    left = stages.jobs(setting, missing=True)
    assert {job.row for job in left if job.stage == "freezing"} == {"clip", "no_ft", "half"}
    assert "ours/joint/front-end" in {job.name for job in left}  # the others need it
    assert "ours/joint/seed-0/ask" not in {job.name for job in left}
    driver.carry_out(setting, left, say=quiet)
    assert stages.jobs(setting, missing=True) == []
    assert command(str(setting.plan.path), "--frozen", str(setting.frozen), "--missing") == 0


def test_recipes_are_flattened_with_seed_and_size(setting: stages.Setting) -> None:
    row = setting.plan.row("no_ft")
    values = stages.recipe_values(setting, row, 1)
    assert values["base"] == "tiny"
    assert values["views"] == 2
    assert values["frontend"] == {"kind": "fsq"}
    assert values["tuning"]["loop"] == {"seed": 1}
    large = stages.Setting(setting.plan, setting.plan.size("large"), setting.work, setting.frozen, "cpu")
    values = stages.recipe_values(large, setting.plan.row("clip"), 2)
    assert "base" not in values
    assert values["language"] == {"backbone": "large"}
    assert values["tuning"]["loop"] == {"steps": 9, "seed": 2}
    assert values["frontend"] == {"kind": "clip", "clip": {"batch": 7}}
    text = stages.write_recipe(setting, row, 1).read_text()
    assert 'base = "tiny"' in text


def test_everything_is_done_once(setting: stages.Setting) -> None:
    jobs = stages.jobs(setting)
    outcome = driver.carry_out(setting, jobs, say=quiet)
    assert outcome.done == [job.name for job in jobs]
    assert len(calls(setting)) == len(jobs)
    facts = json.loads((setting.frozen / "ours" / "seed-1" / "training-joint.json").read_text())
    assert (facts["parameters"], facts["steps"], facts["training_tokens"], facts["hours"]) == (17, 100, 5000, 0.5)
    again = driver.carry_out(setting, jobs, say=quiet)
    assert again.skipped == outcome.done
    assert len(calls(setting)) == len(jobs)
    assert (setting.work / "logs" / "ours/joint/seed-0/tune.log").is_file()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_several_jobs_run_side_by_side_but_none_before_what_it_needs(
    setting: stages.Setting, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    jobs, lock = stages.jobs(setting), threading.Lock()
    finished: set[str] = set()
    running, most = 0, 0

    def pretend(setting: stages.Setting, job: stages.Job) -> float:
        nonlocal running, most
        with lock:
            assert set(job.needs) <= finished, job.name
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        job.makes.parent.mkdir(parents=True, exist_ok=True)
        job.makes.touch()
        with lock:
            running -= 1
            finished.add(job.name)
        return 1.0

    monkeypatch.setattr(driver, "_run", pretend)
    monkeypatch.setattr(driver, "_finish", lambda setting, job: None)
    outcome = driver.carry_out(setting, jobs, workers=workers, say=quiet)
    assert sorted(outcome.done) == sorted(job.name for job in jobs)
    assert most == workers


def test_a_row_that_fails_stops_no_other(setting: stages.Setting) -> None:
    jobs = stages.jobs(setting)
    marker = setting.plan.path.parent / "FAIL"
    marker.write_text("frontends/clip")
    said: list[str] = []
    with pytest.raises(driver.RowsFailed, match=r"1 jobs failed .clip/joint/front-end"):
        driver.carry_out(setting, jobs, say=said.append)
    assert any("it broke" in line for line in said)
    assert (setting.frozen / "ours" / "seed-1" / "synthetic_a_qa" / "manifest.json").is_file()
    assert (setting.frozen / "half" / "seed-0" / "training-joint.json").is_file()
    assert not (setting.frozen / "clip").exists()
    marker.unlink()
    outcome = driver.carry_out(setting, jobs, say=quiet)
    assert {name.partition("/")[0] for name in outcome.done} == {"clip"}


def test_a_program_that_makes_nothing_has_failed(setting: stages.Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "HEARTLLM", (sys.executable, "-c", "print('fine')"))
    with pytest.raises(driver.RowsFailed):
        driver.carry_out(setting, stages.jobs(setting, frozenset({"ours"})), say=quiet)


def test_a_changed_recipe_is_not_taken_for_the_old_one(setting: stages.Setting) -> None:
    driver.carry_out(setting, stages.jobs(setting, frozenset({"no_ft"})), say=quiet)
    path = setting.plan.path.parent / "recipes" / "no_ft.toml"
    path.write_text(path.read_text() + "[tuning.loop]\nsteps = 3\n")
    jobs = stages.jobs(setting, frozenset({"no_ft"}))
    said: list[str] = []
    with pytest.raises(driver.RowsFailed):
        driver.carry_out(setting, jobs, say=said.append)
    assert any("another recipe" in line for line in said)
    with pytest.raises(UsageError, match="another recipe"):
        driver.plan_text(setting, jobs)


def test_a_job_that_another_process_is_at_is_left_alone(setting: stages.Setting) -> None:
    fcntl = pytest.importorskip("fcntl")
    jobs = stages.jobs(setting, frozenset({"no_ft"}))
    path = setting.work / "jobs" / f"{jobs[0].name}.lock"
    path.parent.mkdir(parents=True)
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        outcome = driver.carry_out(setting, jobs, say=quiet)
    assert outcome.done == []
    assert outcome.held_back == [job.name for job in jobs]


def test_a_dry_run_tells_hours(setting: stages.Setting) -> None:
    text = driver.plan_text(setting, stages.jobs(setting))
    assert "to be drawn: data/synthetic-a" in text
    assert "Ours, joint, seed 0: front-end, tokens, forecasting, tuning, blind, asking, freezing  ~8.5 h" in text
    assert "Ours, joint, seed 1: forecasting, tuning, blind, asking, freezing  ~7.0 h" in text
    assert calls(setting) == []
    large = stages.Setting(setting.plan, setting.plan.size("large"), setting.work, setting.frozen, "cpu")
    assert "hours not measured" in driver.plan_text(large, stages.jobs(large))


@pytest.mark.parametrize("recipe", ["recipes/none.toml", "enormous"])
def test_a_recipe_that_is_missing_is_told_before_anything_runs(setting: stages.Setting, recipe: str) -> None:
    path = setting.plan.path
    path.write_text(PLAN.replace('recipe = "recipes/clip.toml"', f'recipe = "{recipe}"'))
    wrong = stages.Setting(plan.load(path), setting.size, setting.work, setting.frozen, "cpu")
    with pytest.raises(UsageError, match="row clip"):
        stages.jobs(wrong)


def test_recipes_based_on_each_other(setting: stages.Setting) -> None:
    (setting.plan.path.parent / "recipes" / "clip.toml").write_text('base = "no_ft.toml"\n')
    with pytest.raises(UsageError, match="based on each other"):
        stages.jobs(setting)


def test_facts_of_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no language model"):
        training_facts.facts(tmp_path)
    (tmp_path / "language.safetensors").write_bytes(struct.pack("<Q", 5) + b"{")
    with pytest.raises(DataError, match="not a safetensors file"):
        training_facts.facts(tmp_path)


def test_the_committed_plan_is_whole(tmp_path: Path) -> None:
    """Every recipe, suite and stage of `reports/paper.toml` exists."""
    from heartllm_eval.suite import select

    root = Path(__file__).resolve().parents[2]
    committed = plan.load(root / "reports" / "paper.toml")
    for size in committed.sizes:
        found = stages.Setting(committed, size, tmp_path, tmp_path / "runs", "cpu")
        assert len(stages.jobs(found)) > len(committed.rows)
        for regime in size.regimes:
            assert len(select(list(regime.suites), [])) == len(regime.suites)
    for table in committed.tables:
        for suite in table.suites:
            assert any(suite in regime.suites for regime in committed.size().regimes), suite


def test_the_command(setting: stages.Setting, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    path, work = str(setting.plan.path), str(setting.work)
    assert command(path, "--work", work, "--dry_run") == 0
    assert "hours of one core" in capsys.readouterr().out
    assert command(path, "--work", work, "--only", "no_ft") == 0
    assert (setting.plan.path.parent / "runs" / "no_ft" / "seed-0" / "training-joint.json").is_file()
    assert command(path, "--work", work, "--only", "nobody") == 2
    assert "It has: ours, clip" in capsys.readouterr().err
    (setting.plan.path.parent / "FAIL").write_text("frontends/clip")
    assert command(path, "--work", work) == 1

"""`heartllm data get` against a server on loopback: what is here, what is fetched, what a hostile list may not do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heartllm.cli import app
from heartllm.data import download as downloading
from heartllm.data.download import download
from heartllm.data.ptbxl import COLUMNS
from heartllm.data.sources import SOURCES, SUMS, look, read_sums
from heartllm.errors import CheckpointError, DataError, UsageError
from heartllm.texts import hash_file

PTBXL = SOURCES["ptbxl"]
CONTENT = {
    "ptbxl_database.csv": b"ecg_id,filename_hr\n",
    "records500/00000/00001_hr.dat": bytes(range(256)) * 400,
    "records500/00000/00001_hr.hea": b"00001_hr 1 500 51200\n00001_hr.dat 16 1000/mV 16 0 0 0 0 I\n",
    "records100/00000/00001_lr.dat": b"not read here",
}


def sums_of(content: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(data).hexdigest()} {name}\n" for name, data in content.items()).encode()


@dataclass
class Mirror:
    """A server of files. `cut` bytes of a reply are sent, then the connection ends; `ranges` is what was asked for."""

    files: dict[str, bytes] = field(default_factory=lambda: {SUMS: sums_of(CONTENT), **CONTENT})
    cut: int = 0
    resumes: bool = True
    failing: int = 0  # replies that are 503
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: Any) -> tuple[int, dict[str, str], Any]:
        name, wanted = request.path.lstrip("/"), request.headers.get("Range", "")
        self.asked.append((name, wanted))
        if self.failing:
            self.failing -= 1
            return 503, {}, b""
        if name not in self.files:
            return 404, {}, b"no"
        data = self.files[name]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.resumes else 0
        if start >= len(data) > 0:
            return 416, {}, b""
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        sent = data[start : start + self.cut] if self.cut else data[start:]
        return 206 if start else 200, headers, [sent]


@pytest.fixture
def mirror(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Mirror:
    monkeypatch.setattr(downloading, "FIRST_WAIT", 0.001)
    made = Mirror()
    made.url = serve(made.answer) + "/"
    return made


def test_everything_that_is_read_is_fetched_once(mirror: Mirror, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []
    assert download(PTBXL, tmp_path, address=mirror.url, report=lambda *step: told.append(step)) == 3
    assert look(PTBXL, tmp_path).whole
    assert not (tmp_path / "records100").exists()
    assert told[-1][:2] == (3, 3)
    assert not list(tmp_path.rglob("*.part"))
    asked = len(mirror.asked)
    assert download(PTBXL, tmp_path, address=mirror.url) == 0
    assert len(mirror.asked) == asked
    assert download(PTBXL, tmp_path, address=mirror.url, everything=True) == 1


@pytest.mark.parametrize("resumes", [True, False])
def test_a_cut_connection_is_taken_up_where_it_ended(mirror: Mirror, tmp_path: Path, resumes: bool) -> None:
    mirror.cut, mirror.resumes = 60_000, resumes
    if resumes:
        assert download(PTBXL, tmp_path, address=mirror.url) == 3
        ranges = [wanted for name, wanted in mirror.asked if name.endswith("_hr.dat")]
        assert ranges == ["", "bytes=60000-"]
    else:  # a server that always begins anew, and always stops: not for ever
        with pytest.raises(DataError, match=r"the connection was cut.*goes on where it stopped"):
            download(PTBXL, tmp_path, address=mirror.url)
        mirror.cut = 0
        assert download(PTBXL, tmp_path, address=mirror.url) >= 1
    assert look(PTBXL, tmp_path).whole


def test_a_stopped_download_goes_on_in_another_process(mirror: Mirror, tmp_path: Path) -> None:
    part = tmp_path / "records500" / "00000" / "00001_hr.dat.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT["records500/00000/00001_hr.dat"][:1000])
    download(PTBXL, tmp_path, address=mirror.url)
    assert ("records500/00000/00001_hr.dat", "bytes=1000-") in mirror.asked
    assert look(PTBXL, tmp_path).whole


def test_a_wrong_hash_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    name = "records500/00000/00001_hr.dat"
    mirror.files[name] = CONTENT[name][:-1] + b"?"
    with pytest.raises(DataError, match="does not have the hash"):
        download(PTBXL, tmp_path, address=mirror.url)
    assert not (tmp_path / name).exists()
    assert not (tmp_path / f"{name}.part").exists()
    mirror.files[name] = CONTENT[name]
    download(PTBXL, tmp_path, address=mirror.url)
    assert look(PTBXL, tmp_path).whole


def test_a_part_that_is_too_long_or_of_another_file_is_replaced(mirror: Mirror, tmp_path: Path) -> None:
    """The server has nothing behind it: what is held does not have the hash, and the next start begins anew."""
    name = "records500/00000/00001_hr.dat"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / f"{name}.part").write_bytes(b"x" * 200_000)
    with pytest.raises(DataError, match="does not have the hash"):
        download(PTBXL, tmp_path, address=mirror.url)
    download(PTBXL, tmp_path, address=mirror.url)
    assert hash_file(tmp_path / name) == hashlib.sha256(CONTENT[name]).hexdigest()


def test_a_file_that_changed_on_disk_is_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    download(PTBXL, tmp_path, address=mirror.url)
    (tmp_path / "ptbxl_database.csv").write_bytes(b"other")
    assert look(PTBXL, tmp_path).wrong == ("ptbxl_database.csv",)
    assert look(PTBXL, tmp_path, quick=True).whole
    assert download(PTBXL, tmp_path, address=mirror.url) == 1
    assert (tmp_path / "ptbxl_database.csv.before").read_bytes() == b"other"


def test_a_busy_server_is_asked_again_and_a_refusal_told(mirror: Mirror, tmp_path: Path) -> None:
    mirror.failing = 3
    assert download(PTBXL, tmp_path, address=mirror.url) == 3
    with pytest.raises(DataError, match=r"404.*browser"):
        download(PTBXL, tmp_path / "other", address=mirror.url + "elsewhere/")


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "FIRST_WAIT", 0.001)
    with pytest.raises(DataError, match=r"cannot be fetched .*fetch it by other means"):
        download(PTBXL, tmp_path, address="http://127.0.0.1:9/")
    for address in ("ftp://x/", "file:///etc/", "x"):
        with pytest.raises(UsageError, match="no http or https address"):
            download(PTBXL, tmp_path, address=address)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", "./../x", "a\\b", "x" * 300, "a\x07b", "."])
def test_a_list_that_leads_out_of_the_folder(mirror: Mirror, tmp_path: Path, name: str) -> None:
    mirror.files[SUMS] = f"{'0' * 64}  {name}\n".encode()
    with pytest.raises(DataError, match=r"is no hash and name|is no file's"):
        download(PTBXL, tmp_path / "in", address=mirror.url)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert not list((tmp_path / "in").iterdir())


def test_a_link_in_the_folder_is_not_written_through(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "in" / "records500").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match="outside the folder"):
        download(PTBXL, tmp_path / "in", address=mirror.url)
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("text", ["", "abc", f"{'g' * 64} x", "0" * 64, "\0" * 100])
def test_lists_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / SUMS).write_text(text)
    with pytest.raises(DataError, match=SUMS):
        read_sums(tmp_path / SUMS)


def test_without_hashes_recordings_are_looked_for_by_the_table(tmp_path: Path) -> None:
    rows = ["ecg_id,filename_hr", "1,records500/00000/00001_hr", "2,records500/00000/00002_hr"]
    (tmp_path / "records500" / "00000").mkdir(parents=True)
    for name in list(CONTENT)[1:3]:
        (tmp_path / name).write_bytes(CONTENT[name])
    assert look(PTBXL, tmp_path).missing == ("ptbxl_database.csv",)
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(rows))
    found = look(PTBXL, tmp_path)
    assert (found.expected, len(found.missing), found.wrong) == (4, 2, ())
    (tmp_path / "records500/00000/00001_hr.dat").write_bytes(b"short")
    assert look(PTBXL, tmp_path).wrong == ("records500/00000/00001_hr.dat",)
    assert "filename_hr" in COLUMNS


def test_the_command(mirror: Mirror, tmp_path: Path) -> None:
    runner, given = CliRunner(), ["data", "get", "ptbxl", "--data_root", str(tmp_path)]
    missing = runner.invoke(app, given)
    assert isinstance(missing.exception, DataError)
    assert "--download" in str(missing.exception)
    for fact in (PTBXL.page, "CC BY 4.0", "21,799 recordings", "not here"):
        assert fact in missing.output
    fetched = runner.invoke(app, [*given, "--download", "--source", mirror.url])
    assert fetched.exit_code == 0, fetched.output
    assert "3 files fetched" in fetched.output
    facts = json.loads(runner.invoke(app, [*given, "--json"]).output)
    assert facts["whole"]
    assert (facts["expected"], facts["missing"], facts["checked_by"]) == (3, [], SUMS)
    (tmp_path / "ptbxl" / "ptbxl_database.csv").unlink()
    told = runner.invoke(app, [*given, "--json"])
    assert json.loads(told.output)["missing"] == ["ptbxl_database.csv"]
    assert isinstance(told.exception, DataError)


def test_the_program_ends_with_one_line_and_is_quiet_without_a_terminal(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HEARTLLM_DATA"}
    for more, code in (([], 2), (["--data_root", str(tmp_path)], 1)):
        done = subprocess.run(
            [sys.executable, "-m", "heartllm.cli", "data", "get", "ptbxl", *more],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("error: ")
        assert PTBXL.page in done.stdout  # the source is told, whatever else is wrong

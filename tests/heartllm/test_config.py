"""Configuration files: dataclasses to TOML and back, and errors that name what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartllm.config import dumps, from_dict, load, read_toml, to_dict
from heartllm.errors import UsageError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ()
    deep: Deep = field(default_factory=lambda: Deep())


@dataclass(frozen=True)
class Deep:
    on: bool = False
    note: str | None = None


@dataclass(frozen=True)
class Outer:
    steps: int
    kind: Literal["plain", "paper"] = "plain"
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError("steps must not be negative")


words = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=20)


@given(
    steps=st.integers(0, 2**40),
    kind=st.sampled_from(["plain", "paper"]),
    rate=st.floats(allow_nan=False, allow_infinity=False),
    names=st.lists(words, max_size=4),
    on=st.booleans(),
    note=st.none() | words,
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    steps: int,
    kind: Literal["plain", "paper"],
    rate: float,
    names: list[str],
    on: bool,
    note: str | None,
) -> None:
    config = Outer(steps, kind, Inner(rate, tuple(names), Deep(on, note)))
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(dumps(config), encoding="utf-8")
    assert load(Outer, path) == config
    assert from_dict(Outer, to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step = 1", "unknown key 'step'. Did you mean 'steps'?"),
        ("zzz = 1", "unknown key 'zzz'. Known keys: inner, kind, steps."),
        ("", "missing key 'steps'"),
        ('steps = "1"', "expected int, found str"),
        ("steps = true", "expected int, found bool"),
        ("steps = 1.5", "expected int, found float"),
        ("steps = -1", "steps must not be negative"),
        ('steps = 1\nkind = "plane"', "unknown value 'plane'. Did you mean 'plain'?"),
        ('steps = 1\nkind = "zzz"', "Choose one of: plain, paper."),
        ("steps = 1\ninner = 3", "expected a table, found int"),
        ("steps = 1\n[inner]\nnames = 3", "expected a list, found int"),
        ("steps = 1\n[inner]\nnames = [3]", "expected str, found int"),
        ("steps = 1\n[inner.deep]\non = 1", "expected bool, found int"),
        ("steps = ", "not valid TOML"),
    ],
)
def test_errors_name_the_file_and_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(Outer, path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_whole_numbers_serve_as_floats() -> None:
    assert from_dict(Inner, {"rate": 2}).rate == 2.0
    assert isinstance(from_dict(Inner, {"rate": 2}).rate, float)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'a = "\xe9"')
    with pytest.raises(UsageError, match="not valid TOML"):
        read_toml(tmp_path / "latin.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "a." * 20_000 + "a = 1",
        "[" + "a." * 20_000 + "a]",
        "x = " + "[" * 20_000,
        "x = " + "9" * 5000,
        "# " + "x" * (1 << 20),
    ],
    ids=["dotted", "heading", "lists", "digits", "long"],
)
def test_toml_that_would_take_for_ever(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError, match=r"x\.toml: not valid TOML"):
        read_toml(tmp_path / "x.toml")


def test_a_whole_number_that_no_float_holds_and_a_long_value_are_told_briefly() -> None:
    @dataclass(frozen=True)
    class Rate:
        rate: float = 1.0

    for value in (10**400, "x" * 100_000):
        with pytest.raises(UsageError, match="expected float") as told:
            from_dict(Rate, {"rate": value})
        assert len(str(told.value)) < 400


def test_an_error_from_within_a_dataclass_names_the_file() -> None:
    @dataclass(frozen=True)
    class Odd:
        def __post_init__(self) -> None:
            raise UsageError("is odd", where="metrics", remedy="Mend it.")

    with pytest.raises(UsageError, match=r"mine\.toml: metrics: is odd"):
        from_dict(Odd, {}, where="mine.toml")

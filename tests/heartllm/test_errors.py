"""Errors: one line, the place first and the remedy last, and exit codes that tell usage from data."""

from __future__ import annotations

import pytest

from heartllm.errors import CheckpointError, DataError, HeartLLMError, UsageError, missing_package, run_command_line


def test_a_message_names_place_fault_and_remedy() -> None:
    error = DataError("lasts 3 s", where="00001_hr", remedy="Crop it.")
    assert str(error) == "00001_hr: lasts 3 s. Crop it."
    assert str(DataError("lasts 3 s", remedy="Crop it.")) == "lasts 3 s. Crop it."
    assert (error.what, error.where, error.remedy) == ("lasts 3 s", "00001_hr", "Crop it.")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no\nsuch option", remedy="Look."), 2, "error: no such option. Look."),
        (DataError("short", where="a.dat", remedy="Fetch it."), 1, "error: a.dat: short. Fetch it."),
        (CheckpointError("altered", remedy="Fetch it."), 1, "error: altered. Fetch it."),
        (ModuleNotFoundError("x", name="wfdb.io"), 1, "error: the package 'wfdb' is not installed."),
        (KeyboardInterrupt(), 130, "interrupted."),
    ],
)
def test_exit_codes(capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str) -> None:
    def app() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_command_line(app)
    assert caught.value.code == code
    printed = capsys.readouterr()
    assert printed.err.startswith(line)
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_defects_of_ours_are_not_hidden() -> None:
    def app() -> None:
        raise ModuleNotFoundError("x", name="heartllm.nothing")

    with pytest.raises(ModuleNotFoundError):
        run_command_line(app)
    assert missing_package(ModuleNotFoundError("x", name="heartllm.nothing")) is None


def test_every_error_is_caught_as_ours() -> None:
    assert issubclass(CheckpointError, DataError)
    assert issubclass(DataError, HeartLLMError)
    assert not issubclass(UsageError, DataError)


def test_a_message_that_quotes_a_file_of_one_line_stays_short() -> None:
    told = str(DataError("unknown column " + "x" * 10**6, remedy="y" * 10**6, where="f.csv"))
    assert told.startswith("f.csv: unknown column xxx")
    assert "(1,000,015 characters)" in told
    assert len(told) < 3000

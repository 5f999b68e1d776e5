"""Rows of files are read as the json and csv modules read them, whatever the pieces, and in little memory."""

from __future__ import annotations

import csv
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartllm.errors import DataError
from heartllm_eval import row_files
from heartllm_eval.models.predictions import read_predictions
from heartllm_eval.row_files import rows

TEXT = st.text(max_size=30)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KEYS = TEXT.filter(lambda key: key not in (*row_files.ID_KEYS, "request", "prediction"))
ROW = st.dictionaries(KEYS, VALUE, max_size=4)


@settings(max_examples=150)
@given(
    data=st.lists(ROW, max_size=6),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    piece=st.sampled_from([1, 2, 7, 64, 65536]),
)
def test_a_json_list_is_read_as_json_does(
    tmp_path_factory: pytest.TempPathFactory,
    data: list[dict[str, Any]],
    indent: int | None,
    ascii_only: bool,
    piece: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.json"
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(("\ufeff \n" + text + "\n").encode("utf-8", errors="surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "PIECE", piece)
        assert [row for _, row in rows(path)] == data


@settings(max_examples=100)
@given(data=st.dictionaries(KEYS, TEXT | ROW, min_size=1, max_size=6), piece=st.sampled_from([1, 5, 65536]))
def test_a_json_object_is_read_as_json_does(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], piece: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "map.json"
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    expected = [
        {"id": key, **(value if isinstance(value, dict) else {"prediction": value})} for key, value in data.items()
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_files, "PIECE", piece)
        assert [row for _, row in rows(path)] == expected


@pytest.mark.parametrize("piece", [1, 3, 65536])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"id": "1"},\n {"id": "2", "pred', r"line 2: not valid JSON \(Unterminated string"),
        ('[{"id": "1"},\n\n {"id" "2"}]' + " " * 100, r"line 3: not valid JSON \(Expecting ':'"),
        ('[{"id": "1"}\n {"id": "2"}]', r"line 2: not valid JSON \(neither a comma nor \]"),
        ('[{"id": "1"},', "not valid JSON"),
        ('[{"id": "1"}', "neither a comma"),
        ('[{"id": "1"}] x', "something follows its end"),
        ('[{"id": "1"},\n 7]', "line 2: a row must be an object, not int"),
        ('{"a": "yes",\n "b" "no"}', r"line 2: not valid JSON \(no colon"),
        ('{"a": "yes",\n 3: "no"}', "not valid JSON|neither a list of rows"),
        ('{"id": "1", "prediction": "yes"}', "neither a list of rows nor an object"),
        ("7", "neither a list of rows nor an object"),
        ("", "neither a list of rows nor an object"),
        ("[" * 100_000, "a row must be an object|nested too deep|not valid JSON"),
    ],
)
def test_broken_json_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str, piece: int
) -> None:
    if piece < 65536 and len(content) > 1000:
        pytest.skip("the same, slowly")
    monkeypatch.setattr(row_files, "PIECE", piece)
    path = tmp_path / "rows.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(rows(path))


def write_jsonl(path: Path, count: int, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for index in range(count):
            stream.write(json.dumps({"id": str(index), "prediction": f"{index} {text}"}) + "\n")


def write_json(path: Path, count: int, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for index in range(count):
            row = json.dumps({"id": str(index), "prediction": f"{index} {text}"}, indent=1)
            stream.write(("[" if index == 0 else ",\n") + row)
        stream.write("]")


def write_map(path: Path, count: int, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for index in range(count):
            stream.write(("{" if index == 0 else ",") + f'"{index}": {json.dumps(f"{index} {text}")}')
        stream.write("}")


def write_csv(path: Path, count: int, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "prediction"])
        writer.writerows([index, f"{index} {text}"] for index in range(count))


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.jsonl", write_jsonl), ("a.json", write_json), ("map.json", write_map), ("a.csv", write_csv)],
)
def test_a_large_file_takes_little_memory(tmp_path: Path, name: str, write: Callable[[Path, int, str], None]) -> None:
    """30 MB, nearly all of it rows that nobody asked for: 4 MB at most."""
    path = tmp_path / name
    write(path, 8_000, "sinus rhythm, " * 285)
    assert path.stat().st_size > 29_000_000
    wanted = [str(index) for index in range(0, 8_000, 800)]
    tracemalloc.start()
    try:
        file = read_predictions(path, [*wanted, "lacking"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000
    assert [file.predictions[key].text.split()[0] for key in wanted] == wanted
    assert (file.missing, file.extra_count, len(file.extra)) == (("lacking",), 7_990, 10)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_row_without_an_end_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(row_files, "LARGEST_ROW", 100_000)
    path = tmp_path / name
    head = {"a.jsonl": '{"id": "1", "prediction": "', "a.json": '[{"id": "1", "prediction": "'}
    path.write_text(head.get(name, 'id,prediction\n1,"') + "yes " * 1_000_000, encoding="utf-8")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="a row of more than 100,000 characters"):
            list(rows(path))
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_scores_of_options_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"id": "1", "prediction": "yes", "option_scores": {"yes": -0.5, "no": -1}}\n'
        '{"request": {"id": "2"}, "prediction": {"id": "2", "text": "no", "option_scores": {"no": -2.5}}}\n'
        '{"request": {"id": "3"}, "prediction": {"id": "3", "text": "", "error": "bad", "option_scores": null}}\n',
        encoding="utf-8",
    )
    found = read_predictions(path, ["1", "2", "3"]).predictions
    assert [found[key].option_scores for key in "123"] == [{"yes": -0.5, "no": -1.0}, {"no": -2.5}, None]
    path.write_text('{"id": "1", "prediction": "yes", "option_scores": {"yes": "much"}}', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: 'option_scores' must be an object of finite numbers"):
        read_predictions(path, ["1"])

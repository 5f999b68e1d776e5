"""The token store against a file a recording: writing, and reading in a random order. Encoding is left out of both."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.codec.store import TokenStore, ecg_of  # noqa: E402
from heartllm.data.records import Entry, Labels  # noqa: E402
from heartllm.ecg.recording import Recording  # noqa: E402
from heartllm.frontends.base import FrontEnd  # noqa: E402
from heartllm.frontends.tokenise import write_store  # noqa: E402

RECORDINGS, CODES = 1024, 313
# An encoder reads 5,000 samples; this one, which gives codes that it was handed, reads one.
SIGNAL = np.zeros((12, 1), np.float32)


class Given(FrontEnd):
    """Gives as the codes of a recording what its only sample counts to."""

    kind: ClassVar[str] = "given"
    config_type: ClassVar[type[Any]] = dict
    codes, width, positions = 1296, None, CODES

    def encode(self, signal: Any) -> Any:
        return (signal[:, 0, :1] + torch.arange(CODES)).long() % self.codes


def entries() -> list[Entry]:
    return [Entry(str(i), str(i), "given", Path(f"{i}"), Labels()) for i in range(RECORDINGS)]


def recordings(part: Any) -> list[tuple[Entry, Recording]]:
    return [(entry, Recording(SIGNAL + float(entry.record_id), 500.0, entry.record_id)) for entry in part]


def write_files(folder: Path) -> None:
    front = Given()
    folder.mkdir()
    for entry, recording in recordings(entries()):
        np.save(folder / f"{entry.record_id}.npy", front.encode(torch.from_numpy(recording.signal)[None])[0].numpy())


@pytest.mark.benchmark(group="token store")
def test_a_store_is_written_and_read_faster_than_files(tmp_path: Path, race: Any) -> None:
    number = itertools.count()

    def write() -> TokenStore:
        return write_store(tmp_path / f"store{next(number)}", Given(), "hash", entries(), recordings, dataset="given")

    store, files = write(), tmp_path / "files"
    write_files(files)
    order = np.random.default_rng(0).permutation(RECORDINGS).astype(str)
    for key in order[:50]:
        np.testing.assert_array_equal(ecg_of(store.of(key)), np.load(files / f"{key}.npy"))
    race(
        "writing tokens, without encoding",
        unit="recording",
        ours=write,
        plain=lambda: write_files(tmp_path / f"files{next(number)}"),
        plain_is="a file a recording (numpy.save)",
        units=RECORDINGS,
        rounds=3,
        least=1.5,
    )


@pytest.mark.benchmark(group="token store")
def test_a_store_is_read_faster_than_files(tmp_path: Path, race: Any) -> None:
    store = write_store(tmp_path / "store", Given(), "hash", entries(), recordings, dataset="given")
    files = tmp_path / "files"
    write_files(files)
    order = np.random.default_rng(0).permutation(RECORDINGS).astype(str)
    race(
        "reading tokens in a random order",
        unit="recording",
        ours=lambda: [ecg_of(store.of(key)) for key in order],
        plain=lambda: [np.load(files / f"{key}.npy") for key in order],
        plain_is="a file a recording (numpy.load)",
        units=RECORDINGS,
        least=4.0,
    )
    assert (files / "0.npy").stat().st_size > 4 * (tmp_path / "store" / "codes.npy").stat().st_size / RECORDINGS

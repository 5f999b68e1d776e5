"""Files of a data set from where it is published: resumable, checked against the published hashes, whole or not there.

A file is `NAME.part` until its hash is right; what a `.part` holds is not fetched again. A file that differs from the
published one is kept as `NAME.before`. Standard library only.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

from heartllm.data.sources import LARGEST_SUMS, SUMS, Source, needed, read_sums
from heartllm.errors import DataError, UsageError
from heartllm.plain import plain_line
from heartllm.texts import hash_file
from heartllm.untrusted import inside

TRIES, FIRST_WAIT, TIMEOUT = 5, 1.0, 30.0  # of a file, in a row without a byte; seconds, doubled; seconds of silence
LARGEST_FILE = 8 << 30  # bytes
_PIECE = 1 << 16
_AGAIN = "The same command goes on where it stopped."
Report = Callable[[int, int, int], None]  # (files done, of, bytes fetched)


def download(
    source: Source,
    root: Path,
    *,
    address: str = "",
    everything: bool = False,
    report: Report = lambda done, of, fetched: None,
) -> int:
    """Fetches what is missing in the folder `root`; returns how many files were fetched.

    Args:
        address: of a mirror, in place of the official one.
        everything: also files that nothing here reads.

    Raises:
        UsageError: if the address is none.
        DataError: if it cannot be reached, a hash is wrong, or the folder cannot be written to.
    """
    address = (address or source.files).rstrip("/") + "/"
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("is no http or https address", where=f"--source {address}", remedy=f"Official: {source.files}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / SUMS).is_file():
            _fetch(address + SUMS, root / f"{SUMS}.part", LARGEST_SUMS, lambda more: None)
            try:
                read_sums(root / f"{SUMS}.part")
            except DataError:
                (root / f"{SUMS}.part").unlink()
                raise
            os.replace(root / f"{SUMS}.part", root / SUMS)
        return _fetch_all(address, root, needed(source, read_sums(root / SUMS), everything=everything), report)
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror})", where=root, remedy=f"Make room there. {_AGAIN}"
        ) from None


def _fetch_all(address: str, root: Path, sums: Mapping[str, str], report: Report) -> int:
    fetched, count = 0, 0

    def more(size: int) -> None:
        nonlocal fetched
        fetched += size
        report(done, len(sums), fetched)

    for done, (name, expected) in enumerate(sums.items()):
        path = inside(root, name)
        if path.is_file() and hash_file(path) == expected:
            report(done + 1, len(sums), fetched)
            continue
        part = path.with_name(f"{path.name}.part")
        inside(root, part.relative_to(root.resolve()).as_posix())
        path.parent.mkdir(parents=True, exist_ok=True)
        url = address + quote(name)
        _fetch(url, part, LARGEST_FILE, more)
        if hash_file(part) != expected:
            part.unlink()  # whatever is wrong with it, it is no beginning of the right one
            raise DataError("does not have the hash that the data set's list gives", where=url, remedy=_AGAIN)
        if path.is_file():  # it may be somebody's own
            os.replace(path, path.with_name(f"{path.name}.before"))
        os.replace(part, path)
        count += 1
        report(done + 1, len(sums), fetched)
    return count


def _fetch(url: str, part: Path, most: int, more: Callable[[int], None]) -> None:
    """Fetches an address into `part`, going on behind what is there; a cut connection is taken up again."""
    failed, wait = 0, FIRST_WAIT
    while True:
        held = part.stat().st_size if part.is_file() else 0
        try:
            if _go_on(url, part, held, most, more):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and held:  # there is nothing behind what is held: whole, or not of this file
                    return
                if error.code < 500 and error.code not in (408, 429):
                    raise _unreachable(
                        url, f"the server says {error.code} {plain_line(str(error.reason))[:80]}"
                    ) from None
                reason = f"the server says {error.code}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = plain_line(str(getattr(error, "reason", error)) or type(error).__name__)[:160]
        if part.is_file() and part.stat().st_size > held:
            failed, wait = 0, FIRST_WAIT
        failed += 1
        if failed >= TRIES:
            raise _unreachable(url, reason)
        time.sleep(wait)
        wait *= 2


def _go_on(url: str, part: Path, held: int, most: int, more: Callable[[int], None]) -> bool:
    """One request; whether all came that the server promised."""
    request = urllib.request.Request(
        url, headers={"User-Agent": "heartllm", **({"Range": f"bytes={held}-"} if held else {})}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
        goes_on = reply.status == 206 and str(reply.headers.get("Content-Range", "")).startswith(f"bytes {held}-")
        length = reply.headers.get("Content-Length", "")
        expected = int(length) if length.isascii() and length.isdigit() and len(length) < 16 else None
        if (expected or 0) > most:
            raise _unreachable(url, f"it would be {expected:,} bytes")
        got = 0
        with part.open("ab" if goes_on else "wb") as stream:
            while piece := reply.read(_PIECE):
                stream.write(piece)
                got += len(piece)
                if got > most:
                    raise _unreachable(url, f"it is more than {most:,} bytes")
                more(len(piece))
            stream.flush()
            os.fsync(stream.fileno())
    return expected is None or got >= expected


def _unreachable(url: str, reason: str) -> DataError:
    remedy = f"Look at the address in a browser, or fetch it by other means into the same folder. {_AGAIN}"
    return DataError(f"cannot be fetched ({reason})", where=url, remedy=remedy)

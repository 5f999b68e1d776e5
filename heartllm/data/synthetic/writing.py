"""Writes a synthetic site to disk, in chunks, by several processes, so that an interrupted run goes on where it
stopped.

Each finished chunk leaves its table rows in `parts/`; when all chunks are there the tables are written, then
`complete.json`, and `parts/` is removed. A folder without `complete.json` is an unfinished site.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from heartllm.data.synthetic import site_a, site_b
from heartllm.data.synthetic.simulation import DURATION, SITES, draw
from heartllm.ecg.recording import SAMPLING_RATE
from heartllm.errors import DataError, HeartLLMError, UsageError
from heartllm.locks import locked
from heartllm.manifests import seal
from heartllm.writing import remove_folder, write_atomically, write_whole

PARTS, COMPLETE = "parts", "complete.json"
VERSION = 3  # of the model and the files; a higher one means other recordings for the same seed
CHUNK = 200
BORROWED = ("noise_of", "machine_of")  # what a site may take from the other one
BLAS_THREADS = ("OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")  # read by OpenBLAS and MKL, and by Accelerate
README = """SYNTHETIC, not patients.

These 12-lead ECGs ({rate:g} Hz, {seconds:g} s) were drawn by HeartLLM's heart-vector model with seed {seed}: site
{site}, {recordings} recordings. Names, ids, dates and devices are invented. truth.csv holds what was drawn. Not for
clinical use.
"""


def _layout(site: str) -> Any:
    """The module that knows a site's files and tables."""
    if site in SITES:
        return {"a": site_a, "b": site_b}[site]
    raise UsageError(f"no synthetic site {site!r}", remedy=f"Choose one of {', '.join(SITES)}.")


def write_site(
    site: str,
    root: Path,
    *,
    recordings: int,
    seed: int,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
    noise_of: str | None = None,
    machine_of: str | None = None,
) -> Path:
    """Writes synthetic site "a" (PTB-XL's layout) or "b" (MIMIC-IV-ECG's) to `root`/synthetic-a or -b.

    The files depend on `seed` and `recordings` alone, not on `workers`. Interrupted, the same call goes on; finished,
    it returns at once.

    Args:
        progress: called with (recordings done, recordings wanted) after every chunk.
        noise_of, machine_of: the site whose noise, or whose machines (bandwidth, mains, hum), the same patients are
            recorded with: one cause of a difference between hospitals at a time.

    Returns:
        The site's folder.

    Raises:
        UsageError: a wrong site, count or number of workers. DataError: the folder holds another site's files.
    """
    layout = _layout(site)
    if recordings < 1 or workers < 1 or seed < 0:
        raise UsageError("recordings and workers are at least 1, the seed at least 0", remedy="Correct the numbers.")
    folder = Path(root) / f"synthetic-{site}"
    borrowed = {"noise_of": noise_of, "machine_of": machine_of}
    borrowed = {name: other for name, other in borrowed.items() if other not in (None, site)}
    for other in borrowed.values():
        _layout(str(other))
    plan: dict[str, Any] = {"site": site, "recordings": recordings, "seed": seed, "version": VERSION, **borrowed}
    if _already_complete(folder, plan):
        remove_folder(folder / PARTS)  # which a kill may have left
        return folder
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    with locked(folder / PARTS / ".lock", where=folder):  # it goes with the parts
        if not _already_complete(folder, plan):
            _write(layout, folder, plan, borrowed, workers, progress)
    return folder


def _write(
    layout: Any,
    folder: Path,
    plan: dict[str, Any],
    borrowed: dict[str, Any],
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    write_whole(folder / PARTS / "plan.json", json.dumps(plan))
    site, recordings, seed = plan["site"], plan["recordings"], plan["seed"]
    chunks = [range(start, min(start + CHUNK, recordings)) for start in range(0, recordings, CHUNK)]
    missing = [chunk for chunk in chunks if _rows(folder, chunk) is None]
    done = recordings - sum(len(chunk) for chunk in missing)
    for finished in _run(site, folder, seed, missing, workers, borrowed):
        done += finished
        if progress is not None:
            progress(done, recordings)
    tables = _write_tables(layout, folder, chunks)
    readme = README.format(rate=SAMPLING_RATE, seconds=DURATION, **plan)
    readme += "".join(f"Its {name.removesuffix('_of')} is that of site {other}.\n" for name, other in borrowed.items())
    write_whole(folder / "README.txt", readme)
    write_whole(folder / COMPLETE, json.dumps(plan | {"tables_sha256": tables}, indent=2) + "\n")
    remove_folder(folder / PARTS)


def _already_complete(folder: Path, plan: dict[str, Any]) -> bool:
    for file, finished in ((folder / COMPLETE, True), (folder / PARTS / "plan.json", False)):
        if not file.exists():
            continue
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or any(found.get(key) != plan.get(key) for key in (*plan, *BORROWED)):
            raise DataError(
                "holds another synthetic site", where=folder, remedy="Choose another folder or remove this one."
            )
        return finished
    if folder.exists() and any(path.name != PARTS for path in folder.iterdir()):  # the plan is the first file
        raise DataError("is not empty", where=folder, remedy="Choose another folder or remove this one.")
    return False


def _part(folder: Path, chunk: range) -> Path:
    return folder / PARTS / f"{chunk.start:09d}.json"


def _rows(folder: Path, chunk: range) -> list[dict[str, list[str]]] | None:
    """The table rows of a finished chunk; None where it is to be drawn (again)."""
    try:
        part = json.loads(_part(folder, chunk).read_text(encoding="utf-8"))
        whole = part["sha256"] == seal(part, []) and len(part["rows"]) == len(chunk)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return part["rows"] if whole else None


def _run(
    site: str, folder: Path, seed: int, chunks: list[range], workers: int, borrowed: dict[str, str | None]
) -> Iterable[int]:
    if workers == 1 or len(chunks) <= 1:
        for chunk in chunks:
            yield write_chunk(site, folder, seed, chunk, borrowed)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(chunks)), mp_context=context) as pool:
        with _one_blas_thread():  # the pool starts its workers while the jobs are handed in
            jobs = [pool.submit(write_chunk, site, folder, seed, chunk, borrowed) for chunk in chunks]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool:
            raise HeartLLMError(
                "a worker process has ended without a word (killed, or out of memory)",
                where=folder,
                remedy="Give fewer --workers; the same command continues after the chunks that are whole.",
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Processes started inside compute with one BLAS thread each, unless the caller's environment asks for another
    number.

    The matrices here are so small that a second thread only waits, and that at full load: two workers would keep four
    threads busy for the work of two. The number must be set before a worker imports numpy, hence the environment.
    """
    added = [name for name in BLAS_THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def write_chunk(site: str, folder: Path, seed: int, chunk: range, borrowed: dict[str, str | None] | None = None) -> int:
    """Writes the recordings of `chunk` and then their table rows; returns their number."""
    settings: dict[str, Any] = dict(borrowed or {})
    layout = _layout(site)
    for place in layout.folders(folder, chunk):
        place.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, list[str]]] = []
    for index in chunk:
        wording = np.random.default_rng([seed, SITES.index(site), 3, index])
        rows.append(layout.write(folder, draw(seed, index, site, **settings), wording))
    part: dict[str, Any] = {"rows": rows}
    write_whole(_part(folder, chunk), json.dumps({**part, "sha256": seal(part, [])}))
    return len(chunk)


def _write_tables(layout: Any, folder: Path, chunks: list[range]) -> dict[str, str]:
    rows: dict[str, list[list[str]]] = {name: [] for name in layout.TABLES}
    for chunk in chunks:
        for recording in _rows(folder, chunk) or ():
            for name, row in recording.items():
                rows[name].append(row)
    hashes = {}
    tables = {name: (layout.TABLES[name], rows[name]) for name in rows} | layout.STATIC_TABLES
    for name, (columns, lines) in tables.items():
        write_atomically(folder / name, partial(_write_table, columns, lines))
        hashes[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return hashes


def _write_table(columns: tuple[str, ...], lines: list[list[str]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(lines)

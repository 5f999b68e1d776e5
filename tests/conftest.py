"""What all tests share: where the real recordings are, one thread, fixed seeds, and what a base install leaves out."""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

# A shell that starts the tests in the background has them ignore Ctrl-C, which the tests of interrupts send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# One thread for every numerical library, set before any of them is imported: results do not depend on the machine's
# core count, and small tensors are faster this way.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach the network
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
HAS_MODEL_STACK = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "wfdb", "scipy"))

# Derandomised: the same examples in every run, so that a failure is a defect of the change and not of the day.
settings.register_profile("heartllm", derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("heartllm")

if HAS_MODEL_STACK:
    import torch

    torch.set_num_threads(1)


def real_data_root() -> Path | None:
    """The folder of real recordings: HEARTLLM_DATA, else ../shared/data beside the repository, else None."""
    named = os.environ.get("HEARTLLM_DATA")
    root = Path(named) if named else ROOT.parent / "shared" / "data"
    return root if (root / "ptbxl").is_dir() else None


def pytest_configure(config: pytest.Config) -> None:
    """Refuses a HEARTLLM_DATA that leads nowhere: silently skipping what somebody asked for would hide it."""
    named = os.environ.get("HEARTLLM_DATA")
    if named and not Path(named).is_dir():
        raise pytest.UsageError(
            f"HEARTLLM_DATA={named}: no such folder. Correct it, or unset it to skip the tests that need it."
        )


def pytest_report_header(config: pytest.Config) -> list[str]:
    data = real_data_root() or "absent (tests marked real_data skip; set HEARTLLM_DATA)"
    stack = "present" if HAS_MODEL_STACK else "absent (tests of it are not collected; install heartllm[model])"
    return [f"real recordings: {data}", f"model stack: {stack}"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """On a base install the rooms of the reference stack are not collected; its torch-free top level still is."""
    if HAS_MODEL_STACK or not collection_path.is_relative_to(ROOT / "tests" / "heartllm"):
        return None
    inside = collection_path.relative_to(ROOT / "tests" / "heartllm").parts
    heavy = {"ecg", "data", "codec", "frontends", "language", "training"}
    return True if inside and inside[0] in heavy else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `real_data` or `model` skip, with the reason, where what they need is absent."""
    lacks_data = pytest.mark.skip(reason="no real recordings: set HEARTLLM_DATA, or put them in ../shared/data")
    lacks_model = pytest.mark.skip(reason="needs the model stack: pip install 'heartllm[model]'")
    for item in items:
        if item.get_closest_marker("real_data") and real_data_root() is None:
            item.add_marker(lacks_data)
        if item.get_closest_marker("model") and not HAS_MODEL_STACK:
            item.add_marker(lacks_model)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays until the end: garbage collections need not visit it, and some tests ask for many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real recordings; the test skips where there is none."""
    root = real_data_root()
    if root is None:
        pytest.skip("no real recordings: set HEARTLLM_DATA, or put them in ../shared/data")
    return root


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return ROOT


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


# Status, headers, body; pieces are sent one after the other, and may be fewer than a Content-Length among the headers.
Reply = tuple[int, dict[str, str], "bytes | Iterable[bytes]"]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[Asked], Reply]], str]]:
    """serve(answer) -> the address of a server on loopback that says what `answer` makes of each request."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[Asked], Reply]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                code, headers, content = answer(Asked(self.command, self.path, dict(self.headers), body))
                if isinstance(content, bytes):
                    headers, content = {"Content-Length": str(len(content)), **headers}, [content]
                with suppress(OSError):  # the client may have gone
                    self.send_response(code)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for piece in content:
                        self.wfile.write(piece)

            do_GET = do_POST

            def log_message(self, format: str, *args: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(http)
        return f"http://127.0.0.1:{http.server_port}"

    yield start
    for http in servers:
        http.shutdown()
        http.server_close()


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same state of the global generators."""
    random.seed(0)
    np.random.seed(0)
    if HAS_MODEL_STACK:
        torch.manual_seed(0)

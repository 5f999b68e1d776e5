"""A client of OpenAI-compatible completions, chat or plain, on the standard library: pacing, retries, telling errors.

The key goes into one header and nowhere else: error texts are searched for it, redirects are refused (they would carry
it to another host), and an address that holds credentials is refused.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.parse import urlsplit

from heartllm.errors import DataError, UsageError

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
LONGEST_WAIT = 120.0  # seconds; a server that asks for more is asked again after this
SHOWN = 160  # characters of a server's own words that are repeated
LARGEST_REPLY = 16 << 20  # bytes
TELL_EVERY = 60.0  # seconds
RETRIES_UNMET = 2  # of a server that has never answered and takes no connection: most likely it does not run


class RequestFailed(Exception):
    """This request has no answer: its retries are used up, or (`lasting`) the server refuses it."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


class ServerRefuses(DataError):
    """Every request would fail alike: a wrong key, model or address."""


class _NoServer(Exception):
    """Nothing takes connections at this address, or the name has none."""


class Stopped(Exception):
    """The run ends while this request waits."""


@dataclass(frozen=True)
class Retrying:
    """How often, and after how long, a request is sent again.

    Attributes:
        retries: after the first attempt. first_wait: seconds, doubled at each retry, times 0.5 to 1.5 at random.
    """

    retries: int = 6
    first_wait: float = 1.0

    def wait(self, attempt: int, asked: float | None) -> float:
        """Seconds before retry number `attempt` (from 0); never less than the server asked for, up to a limit."""
        own = self.first_wait * 2.0**attempt * random.uniform(0.5, 1.5)
        return min(LONGEST_WAIT, max(own, asked or 0.0))

    def left(self, attempt: int, retries: int) -> float:
        """Seconds, about, that the waits after retry number `attempt` take, to the last of `retries`."""
        return sum(min(LONGEST_WAIT, self.first_wait * 2.0**later) for later in range(attempt + 1, retries))


@dataclass
class Pace:
    """Starts of requests at least 60 / `per_minute` seconds apart, over all threads."""

    per_minute: float | None = None
    _next: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, stop: threading.Event) -> None:
        """Returns when the next request may start; raises Stopped if the run ends first."""
        if self.per_minute is None:
            return
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + 60 / self.per_minute
        if stop.wait(max(0.0, start - time.monotonic())):
            raise Stopped


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


class ChatClient:
    """Sends chat completions.

    Args:
        base_url: up to and with "/v1". key: sent as a bearer token; None sends none. timeout: seconds.
        chat: False sends plain completions: a prompt that the server continues as it stands.
        tell: is told of retries, of each number of them at most once in `TELL_EVERY` seconds.

    Raises:
        UsageError: for an address that is no http(s) one, or holds a password or a query.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None,
        timeout: float = 60.0,
        retrying: Retrying,
        pace: Pace | None = None,
        chat: bool = True,
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.url, self.chat = checked_address(base_url).rstrip("/") + f"/{'chat/' * chat}completions", chat
        self._key, self.timeout, self.retrying, self.pace = key, timeout, retrying, pace or Pace()
        self.stop = threading.Event()
        self._tell, self._told, self._met = tell, dict[int, float](), False
        self._opener = urllib.request.build_opener(_NoRedirects)

    def __repr__(self) -> str:
        return f"ChatClient({self.url!r})"

    def complete(self, body: Mapping[str, Any]) -> str:
        """The text of the first choice.

        Raises:
            RequestFailed: if there is none after all retries, or the server refuses this request.
            ServerRefuses: if it would refuse every other request, too.
            Stopped: if `stop` is set meanwhile.
        """
        data = json.dumps(body).encode("utf-8")
        attempt, most = 0, self.retrying.retries
        while True:
            self.pace.wait(self.stop)
            try:
                text, reason, asked = self._attempt(data)
            except _NoServer as error:
                text, reason, asked = None, str(error), None
                most = most if self._met else min(most, RETRIES_UNMET)
            if text is not None:
                return text
            if attempt >= most:
                raise RequestFailed(f"{reason}{f' ({attempt + 1} attempts)' if attempt else ''}")
            wait = self.retrying.wait(attempt, asked)
            self._say(attempt, most, reason, wait)
            if self.stop.wait(wait):
                raise Stopped
            attempt += 1

    def _say(self, attempt: int, most: int, reason: str, wait: float) -> None:
        now = time.monotonic()
        if now - self._told.get(attempt, -TELL_EVERY) < TELL_EVERY:
            return
        self._told[attempt] = now
        left = wait + self.retrying.left(attempt, most)
        self._tell(
            f"{reason}; trying again in {wait:.0f} s (retry {attempt + 1} of {most}; gives up in about {left:.0f} s; "
            "-a retries=N is how often)"
        )

    def _attempt(self, data: bytes) -> tuple[str | None, str, float | None]:
        """The text; or else why there is none, and how many seconds the server asks to wait.

        Raises:
            _NoServer: where nothing takes the connection.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, data=data, headers=headers, method="POST")
        until = time.monotonic() + self.timeout
        try:
            with self._opener.open(request, timeout=self.timeout) as reply:
                payload = _read(reply, until)
                kind = str(reply.headers.get_content_type())
            self._met = True
        except urllib.error.HTTPError as error:
            self._met = True
            with error:
                try:
                    payload = _read(error, until)
                except (OSError, http.client.HTTPException):
                    payload = b""
                return None, self._status(error.code, payload, error.headers), retry_after(error.headers)
        except TimeoutError:
            return None, f"no reply within {self.timeout:g} s", None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            if isinstance(cause, TimeoutError):
                return None, f"no reply within {self.timeout:g} s", None
            reason = self._clean(f"no connection ({cause or type(error).__name__})")
            if isinstance(cause, (ConnectionRefusedError, socket.gaierror)):
                raise _NoServer(reason) from None
            return None, reason, None
        try:
            return self._without_key(completion_text(payload, chat=self.chat)), "", None
        except ValueError as error:
            return None, self._clean(f"{error} ({kind}: {_words(payload)})", SHOWN + 100), None

    def _status(self, code: int, payload: bytes, headers: Any) -> str:
        """Words for an error status that may be tried again; raises where that is of no use."""
        words = f"the server answers {code}"
        said = self._clean(server_words(payload), SHOWN)
        if code in RETRIED:
            return f"{words}{f' ({said})' if said else ''}"
        if code in (401, 403):
            raise ServerRefuses(
                f"{words}: it refuses the key", where=self.url, remedy="Check the key's variable and its rights."
            )
        if code in (404, 405):
            raise ServerRefuses(
                f"{words}{f' ({said})' if said else ''}", where=self.url, remedy="Check base_url (with /v1) and model."
            )
        if 300 <= code < 400:
            raise ServerRefuses(
                f"{words}: it points to another address, which is not followed",
                where=self.url,
                remedy="Name the final address as base_url.",
            )
        raise RequestFailed(f"{words}{f' ({said})' if said else ''}", lasting=True)

    def _clean(self, text: str, length: int | None = None) -> str:
        """One line without the key, cut only then: a key that was cut in two would not be found."""
        text = self._without_key(" ".join(text.split()))
        return text if length is None or len(text) <= length else f"{text[:length]}..."

    def _without_key(self, text: str) -> str:
        """The text without the key, as it is or as it looks inside JSON: a server may repeat it in an answer, too."""
        for form in {self._key, json.dumps(self._key)[1:-1]} if self._key else ():
            text = text.replace(form, "***")
        return text


def _read(reply: Any, until: float) -> bytes:
    """A reply's content, up to a limit of size. A socket's own timeout starts anew with every byte.

    Raises:
        TimeoutError: if it is not whole by `until`.
    """
    found = bytearray()
    while len(found) < LARGEST_REPLY and (piece := reply.read1(1 << 16)):
        found += piece
        if time.monotonic() > until:
            raise TimeoutError
    return bytes(found)


def checked_address(base_url: str) -> str:
    """The address, if it is one.

    Raises:
        UsageError: otherwise; the message does not repeat what may be a password.
    """
    try:
        parts = urlsplit(base_url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine:
        raise UsageError(
            "base_url is no http or https address",
            where="--model_args",
            remedy="Write base_url=http://127.0.0.1:8000/v1.",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError(
            "base_url holds credentials or a query",
            where="--model_args",
            remedy="Put the key into an environment variable and name it with key_env=NAME.",
        )
    return base_url


def completion_text(payload: bytes, *, chat: bool = True) -> str:
    """The text of the first choice of a reply.

    Raises:
        ValueError: if the reply is no chat completion, or no plain one.
    """
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        raise ValueError("the reply is not JSON") from None
    try:
        choice = data["choices"][0]
        text = choice["message"]["content"] if chat else choice["text"]
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"the reply is no {'chat ' * chat}completion") from None
    if text is None:
        return ""  # a refusal, or all tokens spent on reasoning
    if not isinstance(text, str):
        raise ValueError("the reply's text is no text")
    return text


def server_words(payload: bytes) -> str:
    """What a server says about its error, uncut."""
    try:
        data = json.loads(payload)
        found = data.get("error", data.get("message", data.get("detail")))
        words = found.get("message") if isinstance(found, dict) else found
    except (ValueError, RecursionError, AttributeError):
        return _words(payload)
    return str(words) if words else ""


def _words(payload: bytes) -> str:
    return payload.decode("utf-8", errors="replace")


def retry_after(headers: Mapping[str, str] | Message, now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait by a Retry-After header (a number or an HTTP date), None without a valid one."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value)) if value else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now())
    except (ValueError, TypeError):
        return None

"""One HTML file from JSON, chunks, scripts and styles.

What a model said can be anything, so nothing of it is ever markup: the page's JSON stands in a data block with every
"<" escaped, chunks are base64, and the scripts put texts into the page as text nodes only. Should that fail, the page's
policy still forbids every script but this one (by its hash), inline handlers, all network, and, where the browser knows
Trusted Types, making markup from strings at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import zlib
from importlib import resources
from typing import Any

from heartllm_eval.page.contents import Contents

SCRIPTS = (
    "base.js",
    "state.js",
    "data.js",
    "tables.js",
    "confusion.js",
    "list.js",
    "ecg.js",
    "calipers.js",
    "sample.js",
    "filters.js",
    "keys.js",
    "main.js",
)
STYLES = ("page.css", "samples.css", "print.css")
TEMPLATE = "page.html"
POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def page(contents: Contents) -> bytes:
    """The file; the same bytes for the same contents."""
    style = "\n".join(map(_part, STYLES))
    script = '"use strict";\n(() => {\n' + "\n".join(map(_part, SCRIPTS)) + "\n})();\n"
    values = {
        "POLICY": html.escape(POLICY.format(script=_hash(script), style=_hash(style))),
        "TITLE": html.escape(str(contents.meta["title"])),
        "STYLE": style,
        "META": data_block(contents.meta),
        "CHUNKS": "\n".join(
            f'<script type="text/plain" id="chunk-{number}">{packed(content)}</script>'
            for number, content in enumerate(contents.chunks)
        ),
        "SCRIPT": script,
    }
    pieces = _part(TEMPLATE).split("@@")  # text, name, text, name, ..., text; what is filled in stays as it is
    filled = [piece if number % 2 == 0 else values[piece] for number, piece in enumerate(pieces)]
    return "".join(filled).encode("utf-8")


def data_block(value: Any) -> str:
    """JSON that can stand in a script element: no text in it can end the element or open a comment."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def packed(content: bytes) -> str:
    """gzip without a time or name, as base64."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    return base64.b64encode(squeeze.compress(content) + squeeze.flush()).decode("ascii")


def _hash(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _part(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")

"""Text of others as plain text. What a model, a server or a file says must not steer the terminal that shows it.

Escape sequences can set a window's title, hide or rewrite lines, and on some terminals more; direction marks can make a
line read otherwise than it is stored. Both are shown as their codes, `\\u001b`, and do nothing.
"""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # control, format, surrogate, private, unassigned
_LINE_END = re.compile(r"\r\n?|\n|\u2028|\u2029")


def plain(text: str) -> str:
    """The text with its lines, other control, invisible and direction characters as their codes; tabs become spaces."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(map(_shown, _LINE_END.sub("\n", text)))


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and end where it has more than `most` characters: a file's line may have millions."""
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]} ... {text[-most // 8 :]} ({len(text):,} characters)"


def well_formed(text: str) -> str:
    """The text with U+FFFD for every half of a character (a lone surrogate), of which no file can be written."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def plain_line(text: str) -> str:
    """`plain` on one line: line ends become a sign."""
    return plain(text).replace("\n", "⏎")


def _shown(char: str) -> str:
    if char == "\n":
        return char
    if char == "\t":
        return " "
    return f"\\u{ord(char):04x}" if unicodedata.category(char) in _UNSEEN else char

"""Values that readers stumble over: numbers, texts and JSON values that a file of others may hold."""

from __future__ import annotations

import math
from random import Random
from typing import Any

NUMBERS = (
    *("", "0", "-1", "-0", "1", "2", "3.5", "1e308", "-1e308", "1e400", "1e-320", "nan", "NaN", "inf", "-inf", "+5"),
    *("99999999999999999999", "2147483647", "2147483648", "-9223372036854775808", "18446744073709551616", "0x10"),
    *("1_000", "１２", "²", "٣", "1e999999999", "1,5", "1.2.3", "--1", "1e", ".", "4294967295", "1000000000"),
    *("9" * 400, "9" * 5000, "0." + "3" * 400, "5000000", "65535", "-32768", "1e9", "1e15"),
)
TEXTS = (
    *("", " ", "\0", "a\0b", "../../outside/secret", "../outside/secret", "/etc/hostname", "..", ".", "~", "a/b"),
    *("C:\\x", "CON", "%s%n", "{0}", "{ecg}", "=1+1", "null", "true", "[[[", "{", "}", '"', "'", "#", "\x1b[31m"),
    *("\u202e", "\ufeff", "😀", "é", "ﬀ", "I", "V1", "nan", "none", "yes", "test", "train", "None", "\r", "\n"),
    *("x" * 300, "x" * 5000, "é" * 3000, "__import__('os').system('true')", "${HOME}", "a" * 64, "\u2028", "\x85"),
)
LONG = 200_000  # characters of a text that is too long for any field


def number(rng: Random) -> str:
    """A number as text, mostly a bad one."""
    return rng.choice(NUMBERS) if rng.random() < 0.8 else str(rng.randint(-(2**40), 2**40))


def text(rng: Random) -> str:
    """A text, mostly a bad one."""
    chance = rng.random()
    if chance < 0.03:
        return rng.choice("a \t[{\"'(") * LONG
    if chance < 0.15:
        return "".join(chr(rng.randint(0, 0x2FFF)) for _ in range(rng.randint(1, 12)))
    return rng.choice(TEXTS) if chance < 0.75 else number(rng)


def nested(rng: Random, depth: int) -> Any:
    """Lists or objects within each other."""
    value: Any = rng.choice((None, 1, "x"))
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def value(rng: Random) -> Any:
    """A JSON value of any type."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind <= 2:
        return rng.choice((0, -1, 1, 2, 10**9, 2**31, 2**63, 10**30, -(10**15), rng.randint(-100, 10_000)))
    if kind == 3:
        return rng.choice((0.5, -0.0, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf, 3.0))
    if kind <= 6:
        return text(rng)
    if kind == 7:
        return rng.choice(([], {}, [[]], [None], [""], {"": ""}, ["a", 1], [0] * 2000, {"a": {"b": []}}))
    if kind == 8:
        return nested(rng, rng.choice((1, 3, 40)))
    return rng.choice(("\ud800", "a\udfff", ["\ud83d"], {"\udc00": 1}))

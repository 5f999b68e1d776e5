"""`fsq`: HeartLLM's own front-end, the codec's codes."""

from __future__ import annotations

from typing import Any, ClassVar

from heartllm.codec.codec import Codec, CodecConfig, code_count
from heartllm.frontends.base import SAMPLES, FrontEnd


class FSQCodes(Codec, FrontEnd):  # type: ignore[misc]  # `codes` is a property of a codec
    """The codec as a front-end: 313 codes of 32 ms, whose digits are the levels of finite scalar quantisation."""

    kind: ClassVar[str] = "fsq"
    config_type: ClassVar[type[Any]] = CodecConfig
    positions = code_count(SAMPLES)
    width = None

    @property
    def levels(self) -> tuple[int, ...]:
        """FSQ levels: neighbouring digits are neighbouring values."""
        return self.config.levels

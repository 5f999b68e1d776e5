"""`torch.compile` for the decoder layers, while one stage trains."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from heartllm.errors import UsageError
from heartllm.language.model import ECGLanguageModel


@contextmanager
def compiled_layers(model: ECGLanguageModel, device: str | None) -> Iterator[None]:
    """Compiles each decoder layer, and takes plain attention in place of the fused kernel; undoes both at the end.

    On a CPU the fused kernel's backward pass over a packed sequence's mask costs more than the matrix products of
    plain attention, once the compiler has made one pass of what lies between them. On a GPU the fused kernel stays.

    Raises:
        UsageError: on a CPU without a C++ compiler, or if the backbone does not show its layers.
    """
    layers = getattr(model.body, "layers", None)
    if layers is None:
        raise UsageError(
            f"a {type(model.body).__name__} has no `layers` to compile",
            where="compile",
            remedy="Write compile = false.",
        )
    on_cpu = device is None or device == "cpu"
    if on_cpu and not shutil.which(os.environ.get("CXX", "g++")):
        raise UsageError(
            "compiling for a CPU needs a C++ compiler, and there is none",
            where="compile",
            remedy="Install g++, name one in CXX, or write compile = false.",
        )
    settings = model.body.config
    before = settings._attn_implementation
    if on_cpu:
        settings._attn_implementation = "eager"
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        settings._attn_implementation = before
        for layer in layers:
            layer._compiled_call_impl = None

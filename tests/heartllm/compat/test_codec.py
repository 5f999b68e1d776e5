"""`best.pt`: its names and sizes, the codes it makes against a forward pass written from the facts alone, bad files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heartllm.compat.codec import read_codec
from heartllm.errors import CheckpointError

Array = npt.NDArray[np.float64]
LEVELS, CHANNELS = 6, 32


def convolve(x: Array, weight: Array, stride: int = 1) -> Array:
    """(C, T) and (out, C, K) -> (out, ceil(T / stride)), zeros outside."""
    reach = weight.shape[2] // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (reach, reach))), weight.shape[2], axis=1)
    return np.einsum("ctk,ock->ot", windows[:, ::stride], weight, optimize=True)


def block(x: Array, state: dict[str, Array], name: str) -> Array:
    """Kernels 3, 5, 7 and a 1 behind a maximum over 3; plus the input; eight groups normalised; LeakyReLU 0.01."""
    padded = np.pad(x, ((0, 0), (1, 1)), constant_values=-np.inf)
    pooled = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    parts = [convolve(x, state[f"{name}.inc.b{i}.weight"]) for i in (1, 2, 3)]
    parts.append(convolve(pooled, state[f"{name}.inc.b4.weight"]))
    skip = convolve(x, state[f"{name}.match.weight"]) if f"{name}.match.weight" in state else x
    groups = (np.concatenate(parts) + skip).reshape(8, -1)
    normal = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-5)
    y = normal.reshape(CHANNELS, -1) * state[f"{name}.norm.weight"][:, None] + state[f"{name}.norm.bias"][:, None]
    return np.where(y > 0, y, 0.01 * y)


def reference(signal: Array, state: dict[str, Array]) -> tuple[npt.NDArray[np.int64], Array]:
    """(12, 5000) in slot order -> codes (313,), and how far each code's digits are from the nearest rounding border."""
    leads = []
    for row in signal:
        x = ((row - row.mean()) / row.std())[None]
        for i in range(4):
            x = convolve(block(x, state, f"enc.blocks.{i}.0"), state[f"enc.blocks.{i}.1.weight"], stride=2)
        leads.append(block(x, state, "enc.bottleneck"))
    latent = state["enc.to_code.weight"] @ np.concatenate(leads) + state["enc.to_code.bias"][:, None]
    digits = (LEVELS - 1) / (1 + np.exp(-latent))
    margin = np.abs(digits % 1 - 0.5).min(0)
    return (np.round(digits).astype(np.int64) * LEVELS ** np.arange(4)[:, None]).sum(0), margin


@pytest.fixture(scope="module")
def exact_state(codec_state: dict[str, Any]) -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in codec_state.items()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_codes_are_those_of_an_independent_forward_pass(
    best: Path, exact_state: dict[str, Array], make_recording: Callable[..., Any], seed: int
) -> None:
    signal = make_recording(seed=seed).signal
    codes = read_codec(best).codec.encode(torch.from_numpy(signal)[None])[0].numpy()
    wanted, margin = reference(signal.astype(np.float64), exact_state)
    assert codes.shape == wanted.shape == (313,)
    assert len(set(wanted)) > 60  # else equality would say little
    sure = margin > 1e-4  # float32 may round the rest to the other side
    assert sure.mean() > 0.99
    assert np.array_equal(codes[sure], wanted[sure])


def test_leads_are_given_to_the_slots_they_had(
    best: Path, exact_state: dict[str, Array], make_recording: Callable[..., Any]
) -> None:
    signal = make_recording(seed=4).signal
    in_mimic = signal[[0, 1, 2, 3, 5, 4, *range(6, 12)]]  # aVF before aVL
    wanted, margin = reference(in_mimic.astype(np.float64), exact_state)
    by_name, by_place = read_codec(best, "mimic").codec, read_codec(best, "ptbxl").codec
    codes = by_name.encode(torch.from_numpy(signal)[None])[0].numpy()
    assert np.array_equal(codes[margin > 1e-4], wanted[margin > 1e-4])
    swapped = by_place.encode(torch.from_numpy(in_mimic)[None])[0].numpy()
    assert np.array_equal(codes[margin > 1e-4], swapped[margin > 1e-4])
    assert not np.array_equal(codes, by_place.encode(torch.from_numpy(signal)[None])[0].numpy())
    # What is decoded comes back in the canonical order, too.
    index = torch.from_numpy(codes)[None]
    assert torch.equal(by_name.decode(index)[0, 4], by_place.decode(index)[0, 5])


def test_full_size_file(
    save: Callable[..., Path], full_codec_state: dict[str, Any], make_recording: Callable[..., Any]
) -> None:
    state = full_codec_state
    assert len(state) == 73
    assert sum(name.startswith("enc.") for name in state) == 37
    assert sum(value.numel() for value in state.values()) == 4_170_608
    assert sum(value.numel() for name, value in state.items() if name.startswith("enc.")) == 30_692
    found = read_codec(save({"model": state, "step": torch.tensor(34_500)}, "best.pt"))
    assert found.step == 34_500
    assert sum(parameter.numel() for parameter in found.codec.parameters()) == 4_170_608
    signal = torch.from_numpy(make_recording().signal)[None]
    codes = found.codec.encode(signal)
    assert codes.shape == (1, 313)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 1296
    assert found.codec.decode(codes, 5000).shape == (1, 12, 5000)


class Malicious:
    """What `pickle` would execute on loading."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


def test_a_file_that_executes_something_is_refused(
    save: Callable[..., Path], codec_state: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Malicious(), {"model": {**codec_state, "x": Malicious()}, "step": 1}):
        for zipped in (True, False):
            torch.save(content, tmp_path / "evil.pt", _use_new_zipfile_serialization=zipped)
            with pytest.raises(CheckpointError, match="would have to execute") as caught:
                read_codec(tmp_path / "evil.pt")
            assert "weights_only" not in str(caught.value)
            assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_files(codec_state: dict[str, Any], tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "best.pt"
    torch.save({"model": codec_state, "step": 1}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"is damaged|is no plain tensor|no file of torch\.save"):
        read_codec(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), value=st.binary(min_size=1, max_size=40))
def test_overwritten_bytes_give_a_codec_or_our_error(
    codec_state: dict[str, Any], tmp_path: Path, place: float, value: bytes
) -> None:
    path = tmp_path / "best.pt"
    torch.save({"model": codec_state, "step": 1}, path)
    whole = path.read_bytes()
    start = int(place * len(whole))
    path.write_bytes(whole[:start] + value + whole[start + len(value) :])
    with contextlib.suppress(CheckpointError):
        assert read_codec(path).codec.codes == 1296


@given(st.binary(max_size=300))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.pt"
    for head in (b"", b"\x80\x02", b"PK\x03\x04"):
        path.write_bytes(head + content)
        with pytest.raises(CheckpointError):
            read_codec(path)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(CheckpointError, match="no such file"):
            read_codec(path)


def without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in names}


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "bare": (lambda state: state, r'is not \{"model", "step"\}'),
    "list": (lambda state: [state], "but list"),
    "no step": (lambda state: {"model": state}, r"but \['model'\]"),
    "text step": (lambda state: {"model": state, "step": "9"}, "its step is str"),
    "empty": (lambda state: {"model": {}, "step": 9}, "holds no model"),
    "number": (lambda state: {"model": {**state, "enc.to_code.bias": 3}, "step": 9}, "is no plain tensor"),
    "missing": (
        lambda state: {"model": without(state, "enc.to_code.bias", "dec.up.1.bias"), "step": 9},
        r"2 tensors missing \(dec.up.1.bias, enc.to_code.bias\)",
    ),
    "many": (
        lambda state: {"model": {**state, **{f"x{i:02}": torch.zeros(1) for i in range(14)}}, "step": 9},
        r"14 tensors unexpected \(x00, .*x09, and 4 more\)",
    ),
    "prefixed": (
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "step": 9},
        "73 tensors missing",
    ),
    "shape": (
        lambda state: {"model": {**state, "enc.blocks.1.0.inc.b1.weight": torch.zeros(8, 32, 5)}, "step": 9},
        r"enc.blocks.1.0.inc.b1.weight has shape \[8, 32, 5\], not \[8, 32, 3\]",
    ),
    "width": (
        lambda state: {"model": {**state, "dec.expand.weight": torch.zeros(12, 4)}, "step": 9},
        "12 channels, no multiple of 8",
    ),
    "whole numbers": (
        lambda state: {"model": {**state, "enc.to_code.bias": torch.zeros(4, dtype=torch.int64)}, "step": 9},
        "not real numbers",
    ),
    "nan": (
        lambda state: {"model": {**state, "enc.to_code.bias": torch.full((4,), float("nan"))}, "step": 9},
        "holds NaN",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_content(codec_state: dict[str, Any], save: Callable[..., Path], kind: str) -> None:
    spoil, message = WRONG[kind]
    path = save(spoil(codec_state), "best.pt")
    with pytest.raises(CheckpointError, match=message) as caught:
        read_codec(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_half_precision_weights_run_in_float32(
    codec_state: dict[str, Any], save: Callable[..., Path], make_recording: Callable[..., Any]
) -> None:
    path = save({"model": {name: value.bfloat16() for name, value in codec_state.items()}, "step": 1}, "best.pt")
    codec = read_codec(path).codec
    assert {parameter.dtype for parameter in codec.parameters()} == {torch.float32}
    assert codec.encode(torch.from_numpy(make_recording().signal)[None]).dtype == torch.int64

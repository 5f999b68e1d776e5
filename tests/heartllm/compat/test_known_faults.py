"""Thirteen ways in which the authors' numbers can go wrong, each shown on their form and refuted on ours.

Three have their tests elsewhere: fault 6 (processes that pair predictions with another's references) in
`tests/heartllm_eval/test_processes.py`, fault 11 (splits) in `tests/heartllm/data/test_splits.py`, fault 13 (waveforms
read at every step) in `tests/heartllm/training/test_language.py` and `tests/heartllm/language/test_generation.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartllm.codec.codec import Codec, CodecConfig
from heartllm.codec.fsq import FSQ
from heartllm.codec.report import codec_report
from heartllm.compat.codec import SLOTS, read_codec
from heartllm.compat.prompts import authors_background, load_prompts
from heartllm.data.records import Entry
from heartllm.data.tabular import patient_features
from heartllm.ecg import LEADS, read_recording
from heartllm.errors import DataError
from heartllm.language.prompts import prompt_text
from heartllm_eval.metrics import get_metric
from heartllm_eval.schema import Request

GAINS = (0.05, 0.37, 3.3, 20.0)


@pytest.fixture
def authors(best: Path) -> Codec:
    return read_codec(best).codec


@pytest.fixture
def signal(make_recording: Callable[..., Any]) -> torch.Tensor:
    return torch.from_numpy(make_recording(seed=2).signal)[None]


@pytest.fixture
def ours(signal: torch.Tensor) -> Codec:
    """The default codec, untrained, with latents that spread over the levels."""
    torch.manual_seed(2)
    codec = Codec(CodecConfig(decoder_width=16)).eval()
    with torch.no_grad():
        latent, last = codec.encoder(codec.to_network(signal)[0])[0], codec.encoder.to_latent
        last.weight.div_(latent.std(0)[:, None, None])
        last.bias.copy_((last.bias - latent.mean(0)) / latent.std(0))
    return codec


def share_equal(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a == b).float().mean())


def test_1_the_order_of_leads_in_a_file_changes_no_code_of_ours(
    authors: Codec, ours: Codec, signal: torch.Tensor, tmp_path: Path
) -> None:
    recordings, as_stored = [], []
    for site in SLOTS.values():
        stored = signal[0, [LEADS.index(lead) for lead in site]]
        np.save(tmp_path / "x.npy", stored.numpy())
        as_stored.append(stored)
        recordings.append(read_recording(tmp_path / "x.npy", lead_names=site, sampling_rate=500, units="mV"))
    first, second = (torch.from_numpy(recording.signal)[None] for recording in recordings)
    assert torch.equal(ours.encode(first), ours.encode(second))
    assert torch.equal(authors.encode(first), authors.encode(second))  # read by name, theirs does not mind, either
    assert share_equal(authors.encode(as_stored[0][None]), authors.encode(as_stored[1][None])) < 0.9


@pytest.mark.parametrize("gain", GAINS)
def test_2_the_authors_tokens_do_not_see_a_gain_and_ours_do(
    authors: Codec, ours: Codec, signal: torch.Tensor, gain: float
) -> None:
    assert torch.equal(authors.encode(gain * signal), authors.encode(signal))
    by_lead = signal * torch.logspace(-1, 1, 12)[:, None] * gain
    assert share_equal(authors.encode(by_lead), authors.encode(signal)) > 0.995  # up to rounding
    assert share_equal(ours.encode(gain * signal), ours.encode(signal)) < 0.7
    lifted = signal.clone()
    lifted[:, 6] += 0.3  # V1 as a whole by 0.3 mV: no waveform changes, its level does
    assert share_equal(authors.encode(lifted), authors.encode(signal)) > 0.995
    assert share_equal(ours.encode(lifted), ours.encode(signal)) < 0.9


def test_3_our_question_prompt_holds_the_features_and_no_prompt_of_ours_the_patients_id() -> None:
    entry = Entry("1", "patient-9496", "ptbxl", Path("x"), age=54.0, sex="female", weight=59.0)
    features = patient_features(entry)
    assert features
    assert features in prompt_text(features, None, "Why?")
    assert "9496" not in features
    assert "9496" in authors_background(entry)
    theirs = "".join(load_prompts().parts("Why?", authors_background(entry)))
    assert "54" not in theirs  # "without tabular features" cannot be measured where there are none
    assert authors_background(replace(entry, source="mimic")) == ""
    assert patient_features(replace(entry, source="mimic")) == features


@pytest.mark.parametrize(
    ("text", "answers", "theirs", "strict"),
    [("yes.", ("yes",), 0, 1), ("yes.yes", ("yes",), 1, 1), ("a. b", ("a", "b"), 0, 1), ("Yes", ("yes",), 0, 1)],
)
def test_4_exact_match(text: str, answers: tuple[str, ...], theirs: float, strict: float) -> None:
    request = Request("1", "qa", references=answers)
    assert get_metric("exact_match.heartllm").statistics(text, request)[0] == theirs
    assert get_metric("exact_match.strict").statistics(text, request)[0] == strict


def figures(metric: str, prediction: str, *references: str) -> Any:
    """The figures of one constant prediction over some references."""
    found = get_metric(metric)
    rows = [found.statistics(prediction, Request("1", "report", references=(text,))) for text in references]
    return np.ravel(found.score(np.sum(rows, axis=0)))


def test_5_glued_statements_short_reports_and_case() -> None:
    reference, reordered = "Sinus rhythm.Normal ECG.", "Normal ECG.Sinus rhythm."
    assert figures("bleu.heartllm", reordered, reference) == pytest.approx([0, 0, 0, 0], abs=1e-9)
    assert figures("rouge.heartllm", reordered, reference)[0] == pytest.approx(100, abs=1e-4)
    assert figures("bleu.standard", reordered, reference)[0] == pytest.approx(100)  # periods stand by themselves
    assert figures("bleu.heartllm", "sinus rhythm normal", "sinus rhythm normal")[3] == pytest.approx(56.2341, abs=1e-4)
    assert figures("bleu.heartllm-lower-periods", reference.upper(), reference)[0] == pytest.approx(100)
    assert figures("bleu.heartllm", reference.upper(), reference)[0] < 40


@pytest.mark.real_data
def test_5_a_constant_report_is_no_zero(data_root: Path) -> None:
    rows = json.loads((data_root / "reports" / "ptbxl" / "test.json").read_text(encoding="utf-8"))
    reports = [row["report"] for row in rows]
    constant = Counter(reports).most_common(1)[0][0]
    assert figures("bleu.heartllm", constant, *reports)[0] > 25
    assert figures("rouge.heartllm", constant, *reports)[0] > 40


def test_7_one_missing_sample(authors: Codec, ours: Codec, signal: torch.Tensor, tmp_path: Path) -> None:
    broken = signal.clone()
    broken[0, 3, 2500] = torch.nan
    latent = authors.encoder(authors.to_network(broken)[0])
    assert torch.isnan(latent).all()  # what would be rounded to digits: nothing, in all 313 codes
    for codec in (authors, ours):
        with pytest.raises(DataError, match="NaN"):
            codec.encode(broken)
    np.save(tmp_path / "x.npy", broken[0].numpy())
    read: dict[str, Any] = {"lead_names": LEADS, "sampling_rate": 500, "units": "mV"}
    with pytest.raises(DataError, match="1 missing samples"):
        read_recording(tmp_path / "x.npy", **read)
    mended = read_recording(tmp_path / "x.npy", nan_policy="interpolate", **read)
    assert "interpolated" in mended.notes[-1]
    codes = ours.encode(torch.from_numpy(mended.signal)[None])
    changed = torch.nonzero(codes != ours.encode(signal))[:, 1]
    assert all(abs(int(place) - 2500 / 16) < 4 for place in changed)  # within 89 samples of the gap, or nowhere
    assert int(authors.encode(torch.from_numpy(mended.signal)[None]).min()) >= 0


def test_8_half_precision(authors: Codec, signal: torch.Tensor) -> None:
    digits = FSQ().index_to_digits(torch.arange(1296))
    merged = (digits.bfloat16() * torch.tensor([1, 6, 36, 216]).bfloat16()).sum(-1)
    assert len(merged.unique()) == 547  # what a bfloat16 sum of digits keeps of the 1,296 codes
    assert torch.equal(FSQ().digits_to_index(digits.bfloat16()), torch.arange(1296))
    usual = authors.encode(signal)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        latent = authors.encoder(authors.to_network(signal)[0])
        assert torch.equal(authors.encode(signal), usual)
    assert share_equal(authors.fsq(latent)[1], usual) < 0.99


def test_9_the_end_of_a_recording_changes_its_beginning_in_the_authors_codec_only(
    authors: Codec, ours: Codec, signal: torch.Tensor
) -> None:
    disturbed = signal.clone()
    disturbed[..., -100:] += torch.randn(12, 100)  # the last 0.2 s
    first = slice(0, 150)
    assert share_equal(authors.encode(signal)[:, first], authors.encode(disturbed)[:, first]) < 0.8
    assert torch.equal(ours.encode(signal)[:, first], ours.encode(disturbed)[:, first])


def test_10_use_is_counted_over_codes_and_not_over_levels(
    ours: Codec, make_recording: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    diagonal = torch.tensor([sum(level * 6**i for i in range(4)) for level in range(6)])
    monkeypatch.setattr(ours, "encode", lambda x: diagonal[torch.arange(-(-x.shape[-1] // 16)) % 6].repeat(len(x), 1))
    report = codec_report(ours, [make_recording()])
    assert len(ours.fsq.index_to_digits(diagonal).unique()) == 6  # every level is used, of every dimension
    assert (report.codes_used, report.codes) == (6, 1296)
    assert report.perplexity == pytest.approx(6, abs=0.01)


def test_12_both_wordings_have_suites_and_options_restrict_answers() -> None:
    from heartllm_eval.suite import read_suite, suite_files

    suites = {name: read_suite(path) for name, path in suite_files().items()}
    genuine = [suite for suite in suites.values() if suite.kind == "qa" and suite.questions.source == "genuine"]
    wordings = {suite.name: suite.questions.paraphrase for suite in genuine}
    assert wordings["ptbxl_qa_genuine"] is False
    assert wordings["ptbxl_qa_genuine_paraphrased"] is True
    assert all("exact_match.official_llm" in suite.metric_names for suite in genuine)
    request = Request("1", "qa", references=("no",), options=("yes", "no", "not sure"))
    score = get_metric("exact_match.official_llm")
    assert score.statistics("No.", request)[0] == 1
    assert score.statistics("I am not sure.", request)[0] == 0
    ranked = get_metric("exact_match.option_restricted")
    assert "option" in str(ranked.signature)

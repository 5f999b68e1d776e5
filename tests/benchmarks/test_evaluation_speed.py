"""Evaluation from one reading of an ECG against one prompt a question: the same model, the same answers, in one run.

The other path is what a user of transformers writes: prompts sorted by length, padded on the left, in batches.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.checkpoint import load_codec, load_language  # noqa: E402
from heartllm.data.dataset import open_dataset  # noqa: E402
from heartllm.data.synthetic import write_site  # noqa: E402
from heartllm.data.templates import all_asked  # noqa: E402
from heartllm.ecg import read_recording  # noqa: E402
from heartllm.export import materialise  # noqa: E402
from heartllm.language.generation import Generator, ResponderItem  # noqa: E402
from heartllm.language.prompts import prefix_ids, prompt_ids  # noqa: E402
from heartllm.responder import Responder  # noqa: E402

REFERENCE = Path(__file__).parents[2] / "reports" / "reference" / "checkpoint"
RECORDINGS, QUESTIONS, BATCH, TOKENS, LEAST_RATIO = 6, 14, 16, 64, 4.0


@pytest.fixture(scope="module")
def items() -> list[ResponderItem]:
    rng = np.random.default_rng(0)
    asked = [each.text for each in all_asked()]
    return [
        ResponderItem(str(number), codes, asked[index], "Age: 54 years. Sex: female.")
        for number in range(RECORDINGS)
        for codes in [rng.integers(0, 1296, 313)]
        for index in rng.choice(len(asked), QUESTIONS, replace=False)
    ]


def plain_answers(model: Any, plain: Any, items: list[ResponderItem]) -> list[str]:
    vocabulary = model.vocabulary
    prompts = [
        np.concatenate([prefix_ids(vocabulary, i.features, i.codes)[0], prompt_ids(vocabulary, i.question)])
        for i in items
    ]
    order = sorted(range(len(items)), key=lambda index: len(prompts[index]))
    answers = [""] * len(items)
    for first in range(0, len(order), BATCH):
        part = order[first : first + BATCH]
        longest = max(len(prompts[index]) for index in part)
        ids = torch.full((len(part), longest), vocabulary.pad)
        there = torch.zeros_like(ids)
        for row, index in enumerate(part):
            ids[row, longest - len(prompts[index]) :] = torch.from_numpy(prompts[index])
            there[row, longest - len(prompts[index]) :] = 1
        output = plain.generate(
            ids, attention_mask=there, max_new_tokens=TOKENS, do_sample=False, eos_token_id=vocabulary.eos,
            pad_token_id=vocabulary.pad,
        )  # fmt: skip
        for row, index in enumerate(part):
            said = [i for i in output[row, longest:].tolist() if i not in (vocabulary.eos, vocabulary.pad)]
            answers[index] = vocabulary.decode(said)
    return answers


@pytest.mark.slow
@pytest.mark.benchmark(group="evaluation")
def test_one_reading_serves_all_questions_of_an_ecg(items: list[ResponderItem], race: Any) -> None:
    model, _ = load_language(REFERENCE)
    copy, _ = load_language(REFERENCE)
    plain = materialise(copy, list(range(model.vocabulary.base, model.vocabulary.size)), model.vocabulary.size)
    generator = Generator(model)

    def ours() -> list[str]:
        return list(generator.answer(items, max_new_tokens=TOKENS, batch_size=8 * BATCH))

    with torch.no_grad():
        assert ours() == plain_answers(model, plain, items)  # also warms up
        race(
            "evaluation, one reading of an ECG for all its questions",
            unit="answer",
            ours=ours,
            plain=lambda: plain_answers(model, plain, items),
            plain_is="one prompt a question, batches by length",
            units=len(items),
            rounds=3,
            warm=False,
            least=LEAST_RATIO,
            aim=8.0,
        )


@pytest.mark.slow
@pytest.mark.benchmark(group="evaluation")
def test_a_whole_run_with_loading(items: list[ResponderItem], race: Any, tmp_path: Path) -> None:
    """From files to answers: the checkpoint, the waveforms, their codes, the questions."""
    wfdb = pytest.importorskip("wfdb")
    write_site("a", tmp_path, recordings=RECORDINGS, seed=3, workers=1)
    paths = [entry.path.with_suffix("") for entry in open_dataset("synthetic-a", tmp_path).entries()]

    def ours() -> list[str]:
        responder = Responder.load(REFERENCE)
        codes = [responder.encode(read_recording(path)) for path in paths]
        asked = [replace(item, codes=codes[int(item.recording_key)]) for item in items]
        return list(responder.answer(asked, max_new_tokens=TOKENS, batch_size=8 * BATCH))

    def plain() -> list[str]:
        codec, model = load_codec(REFERENCE)[0], load_language(REFERENCE)[0]
        copy, _ = load_language(REFERENCE)
        whole = materialise(copy, list(range(model.vocabulary.base, model.vocabulary.size)), model.vocabulary.size)
        asked = []
        for item in items:
            signal = wfdb.rdsamp(str(paths[int(item.recording_key)]))[0].T
            codes = codec.encode(torch.from_numpy(np.ascontiguousarray(signal, np.float32))[None])[0].numpy()
            asked.append(replace(item, codes=codes))
        return plain_answers(model, whole, asked)

    with torch.no_grad():
        assert ours() == plain()
        race(
            "evaluation from files to answers, with loading",
            unit="answer",
            ours=ours,
            plain=plain,
            plain_is="each question's waveform read and encoded, one prompt a question",
            units=len(items),
            rounds=3,
            warm=False,
            least=LEAST_RATIO,
        )

"""Options ranked in one pass behind one prefix, against one prompt an option: the same likelihoods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the model stack: pip install 'heartllm[model]'")

from heartllm.checkpoint import load_language  # noqa: E402
from heartllm.export import materialise  # noqa: E402
from heartllm.language.generation import Generator, ResponderItem  # noqa: E402
from heartllm.language.prompts import answer_ids, prefix_ids, prompt_ids  # noqa: E402

REFERENCE = Path(__file__).parents[2] / "reports" / "reference" / "checkpoint"
OPTIONS = (
    "sinus rhythm", "atrial fibrillation", "sinus tachycardia", "sinus arrhythmia", "sinus bradycardia",
    "atrial flutter",
    "normal functioning artificial pacemaker", "supraventricular arrhythmia", "bigeminal pattern", "trigeminal pattern",
    "supraventricular tachycardia", "none",
)  # fmt: skip


@pytest.mark.benchmark(group="evaluation")
def test_options_are_ranked_in_one_pass(race: Any) -> None:
    model, _ = load_language(REFERENCE)
    copy, _ = load_language(REFERENCE)
    vocabulary = model.vocabulary
    whole = materialise(copy, list(range(vocabulary.base, vocabulary.size)), vocabulary.size).eval()
    generator, codes = Generator(model), np.random.default_rng(0).integers(0, 1296, 313)
    item = ResponderItem("1", codes, "What rhythm-related symptoms does this ECG show?", "Age: 54 years. Sex: female.")
    assert item.question is not None
    prompt = np.concatenate([prefix_ids(vocabulary, item.features, codes)[0], prompt_ids(vocabulary, item.question)])

    @torch.inference_mode()
    def plain() -> list[float]:
        scores = []
        for option in OPTIONS:
            answer = torch.tensor(np.asarray(answer_ids(vocabulary, option)))
            ids = torch.cat([torch.from_numpy(prompt), answer])[None]
            said = whole(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            scores.append(float(said.gather(1, answer[:, None]).sum()))
        return scores

    def ours() -> list[float]:
        scores: list[float] = generator.option_scores(item, [str(item.question)], OPTIONS)[0].tolist()
        return scores

    np.testing.assert_allclose(ours(), plain(), atol=1e-3)
    race(
        "ranking 12 options of a question",
        unit="question",
        ours=ours,
        plain=plain,
        plain_is="one prompt an option",
        least=3.0,
    )

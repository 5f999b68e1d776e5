"""A checkpoint as a plain Hugging Face model folder, which needs nothing of HeartLLM to answer.

LoRA is merged, ECG rows become rows of the embedding table, and ECG tokens become added tokens of the text tokenizer.
What a checkpoint has beside that, the codec, stays behind: codes come from it, in text form as in `prompt_text`.

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer(prompt_text(features, codes, question), return_tensors="pt", return_token_type_ids=False)
    tokenizer.decode(model.generate(**inputs, do_sample=False)[0, inputs.input_ids.shape[1]:], skip_special_tokens=True)
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heartllm.checkpoint import CheckpointConfig, load_language, verify
from heartllm.errors import CheckpointError, UsageError
from heartllm.language.model import ECGLanguageModel
from heartllm.language.prompts import prefix_ids, prompt_ids, prompt_text
from heartllm.language.vocabulary import END, START, Vocabulary, code_token

MAX_NEW_TOKENS = 128
README = """# {name}: a HeartLLM checkpoint as a plain Hugging Face model

Not for clinical use. Exported from the checkpoint with hash `{fingerprint}` (stage: {stage}); load it with
`AutoModelForCausalLM` and `AutoTokenizer`. ECG codes come from the codec of that checkpoint.
Decode greedily. The tokenizer opens the sequence itself; a prompt reads:

```
{prompt}
```
"""


def export(checkpoint: Path, out: Path) -> None:
    """Writes the language model of `checkpoint` to the new folder `out`; nothing is left there if that fails.

    Raises:
        UsageError: if `out` exists and is not empty.
        CheckpointError: if the checkpoint is altered, feeds its model more than codes, or has a tokenizer that cannot
            spell ECG prompts as one string.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError("exists already", where=out, remedy="Name a new folder.")
    fingerprint = verify(checkpoint)
    model, config = load_language(checkpoint, whole=True)
    if model.soft is not None:
        raise CheckpointError(
            f"the front-end {config.frontend!r} gives soft tokens, which no plain Hugging Face model reads",
            where=checkpoint,
            remedy="Export a checkpoint whose ECGs are codes, or ask this one with `heartllm ask`.",
        )
    tokenizer, ids = grow_tokenizer(model.vocabulary)
    check_spelling(model.vocabulary, tokenizer, ids, config)
    plain = materialise(model, ids, len(tokenizer.get_vocab()))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        write_plain(plain, tokenizer, model.vocabulary, temporary)
        codes = None if config.blind else np.zeros(0, np.int64)
        features = "Age: 54 years. Sex: female." if config.features else ""
        prompt = prompt_text(features, codes, "Does this ECG show ...?", config.layout)
        prompt = prompt.replace(START + END, f"{START}{code_token(17)}{code_token(1203)} ... {END}")
        text = README.format(name=out.name, fingerprint=fingerprint, stage=config.stage, prompt=prompt)
        (temporary / "README.md").write_text(text, encoding="utf-8")
        if out.exists():
            out.rmdir()
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_plain(plain: Any, tokenizer: Any, vocabulary: Vocabulary, folder: Path) -> None:
    """Writes a causal LM that decodes greedily, and the tokenizer that knows its ECG tokens, into `folder`."""
    plain.generation_config = _generation_config(vocabulary)
    plain.save_pretrained(folder)
    _write_tokenizer(tokenizer, folder, int(getattr(plain.config, "max_position_embeddings", 0) or 0))
    _write_rope_theta(folder / "config.json")


def grow_tokenizer(vocabulary: Vocabulary) -> tuple[Any, list[int]]:
    """A copy of the text tokenizer with the ECG tokens, and their ids in it: start, end, code 0, code 1, ...

    The ids are those of `vocabulary`, unless the backbone has rows that its tokenizer does not use: the tokens then
    take the first of these.
    """
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.processors import Sequence, TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    source = vocabulary.tokenizer
    inner = Tokenizer.from_str(source.backend_tokenizer.to_str())
    names = [START, END, *(code_token(code) for code in range(vocabulary.codes))]
    inner.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    if vocabulary.bos and inner.encode("a").ids[: len(vocabulary.bos)] != vocabulary.bos:
        opening = TemplateProcessing(
            single=f"{source.bos_token} $A", special_tokens=[(source.bos_token, vocabulary.bos[0])]
        )
        inner.post_processor = opening if inner.post_processor is None else Sequence([inner.post_processor, opening])
    inner.no_padding()
    inner.no_truncation()
    specials = {
        name: str(getattr(source, name))
        for name in ("bos_token", "eos_token", "pad_token", "unk_token")
        if getattr(source, name, None) is not None
    }
    grown = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **specials)
    known = inner.get_vocab()
    return grown, [known[name] for name in names]


def check_spelling(vocabulary: Vocabulary, tokenizer: Any, ids: list[int], config: CheckpointConfig) -> None:
    """Holds the string form of prompts against their ids.

    Raises:
        CheckpointError: if the grown tokenizer reads a prompt in another way, by putting spaces around tokens for one.
    """
    codes = None if config.blind else np.array([0, vocabulary.codes - 1, 7 % vocabulary.codes, 0], np.int64)
    moved = np.arange(vocabulary.size)
    moved[vocabulary.base :] = ids
    for features in ("", "Age: 54 years. Sex: female."):
        for question in ("Does this ECG show symptoms of sinus rhythm?", None):
            layout = config.layout
            inside = question if layout == "question-first" else None
            wanted = np.concatenate(
                [prefix_ids(vocabulary, features, codes, inside)[0], prompt_ids(vocabulary, question, layout)]
            )
            found = tokenizer(prompt_text(features, codes, question, layout))["input_ids"]
            if moved[wanted].tolist() != list(found):
                raise CheckpointError(
                    "the text tokenizer reads text after an ECG token in another way than by itself",
                    remedy="Use a backbone with a byte-level tokenizer for models that are to be exported.",
                )


@torch.no_grad()
def materialise(model: ECGLanguageModel, ids: list[int], rows: int) -> Any:
    """The backbone with LoRA merged and `rows` embedding rows, the ECG rows at `ids`. Changes `model`.

    Args:
        ids: where the start, end and code rows go.
        rows: rows of the grown tables; text rows beyond them are ones that the tokenizer does not use.
    """
    base = model.vocabulary.base
    tables = [model.table().clone()] + ([] if model.tied else [model.output_table().clone()])
    plain = model.backbone
    if hasattr(plain, "merge_and_unload"):
        plain = plain.merge_and_unload()
    rows = max(rows, max(ids) + 1)
    plain.resize_token_embeddings(rows, mean_resizing=False)
    modules = [plain.get_input_embeddings(), plain.get_output_embeddings()]
    for module, table in zip(modules, tables, strict=False):
        kept = min(base, rows)
        module.weight[:kept] = table[:kept]
        module.weight[torch.tensor(ids)] = table[base:]
    plain.requires_grad_(False)
    return plain.eval()


def _generation_config(vocabulary: Vocabulary) -> Any:
    """Greedy, to the end token; whatever sampling the backbone came with is dropped."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=vocabulary.eos,
        pad_token_id=vocabulary.pad,
        bos_token_id=vocabulary.bos[0] if vocabulary.bos else None,
    )


def _write_tokenizer(tokenizer: Any, folder: Path, longest: int) -> None:
    """tokenizer.json, and the least configuration that older and newer transformers both read in the same way."""
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    settings: dict[str, Any] = {name: getattr(tokenizer, name) for name in names if getattr(tokenizer, name)}
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if longest:
        settings["model_max_length"] = longest
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _write_rope_theta(path: Path) -> None:
    """Repeats RoPE's settings where transformers before 5 looks for them; it ignores `rope_parameters` silently."""
    config = json.loads(path.read_text(encoding="utf-8"))
    rope = config.get("rope_parameters")
    if isinstance(rope, dict) and "rope_theta" in rope:
        config.setdefault("rope_theta", rope["rope_theta"])
        if rope.get("rope_type", "default") != "default":
            config.setdefault("rope_scaling", {name: value for name, value in rope.items() if name != "rope_theta"})
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

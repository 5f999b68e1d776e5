"""The language model: any Hugging Face causal LM, its architecture untouched, with rows for ECG tokens.

The text rows stay the backbone's own parameter; the new rows are ours (`CodeRows`) and are joined to them on use. So on
a pretrained backbone just the new rows and LoRA can train, and export is a concatenation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from heartllm.errors import UsageError
from heartllm.language.rows import CodeRows
from heartllm.language.vocabulary import Vocabulary


@dataclass(frozen=True)
class TinyConfig:
    """A small Llama that starts from nothing.

    Attributes:
        vocabulary: rows of its own BPE text tokenizer.
        rope_theta: with narrow heads a small base leaves no plane slow enough to compare contents 300 codes apart.
        local_layers: lower layers whose heads start out looking at fixed distances back, see `start_local`.
    """

    hidden: int = 128
    layers: int = 6
    heads: int = 4
    feedforward: int = 384
    vocabulary: int = 1024
    rope_theta: float = 10_000.0
    local_layers: int = 3


@dataclass(frozen=True)
class LoraSettings:
    """LoRA as in PEFT; the paper uses rank 64, alpha 16, dropout 0.05 on all seven projections."""

    rank: int = 64
    alpha: int = 16
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LanguageConfig:
    """Which language model, and how ECG tokens enter it.

    Attributes:
        backbone: "tiny"; or a pretrained one: "smollm2", a GGUF file of a Llama, or a folder or hub name of a Hugging
            Face causal LM.
        rows: "digits" or "opaque", see `heartllm.language.rows`.
        train: "all" (everything), "lora" (new rows and LoRA: the paper's way on a pretrained backbone), "lora+norms".
        quantise: "4bit" keeps a pretrained backbone's matrices in 4 bits; for LoRA, on a GPU, with bitsandbytes.
    """

    backbone: str = "tiny"
    rows: Literal["digits", "opaque"] = "digits"
    train: Literal["all", "lora", "lora+norms"] = "all"
    tiny: TinyConfig = field(default_factory=TinyConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    quantise: Literal["4bit"] | None = None

    def __post_init__(self) -> None:
        if self.quantise and (self.backbone == "tiny" or self.train == "all"):
            raise UsageError(
                "only a pretrained backbone that stays as it is can be kept in 4 bits",
                where="language.quantise",
                remedy='Leave it out, or name a backbone and write train = "lora".',
            )


class ECGLanguageModel(nn.Module):
    """A causal LM over text and ECG tokens. Ids are those of `Vocabulary`.

    Args:
        levels: of the codes' digits, empty where codes have none.
        soft: turns the values of a continuous front-end into inputs, see `FrontEnd.soft_input`; None for codes.
    """

    def __init__(
        self,
        backbone: Any,
        vocabulary: Vocabulary,
        levels: tuple[int, ...],
        config: LanguageConfig,
        soft: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.vocabulary, self.config, self.levels = backbone, vocabulary, config, levels
        hidden = int(backbone.config.hidden_size)
        text = backbone.get_input_embeddings().weight
        if text.shape[0] != vocabulary.base:
            raise UsageError(
                f"the backbone has {text.shape[0]} text rows but the vocabulary counts {vocabulary.base}",
                remedy="Use the tokenizer that belongs to the backbone.",
            )
        deviation = float(text.detach().float().std())
        self.rows = CodeRows(levels, hidden, config.rows, deviation, vocabulary.codes)
        self.tied = bool(backbone.config.tie_word_embeddings)
        self.output_rows = None if self.tied else CodeRows(levels, hidden, config.rows, deviation, vocabulary.codes)
        self.soft = soft

    def table(self) -> Tensor:
        """(V, hidden): input rows of the whole vocabulary."""
        return torch.cat([self.backbone.get_input_embeddings().weight, self.rows().to(self.dtype)])

    def output_table(self) -> Tensor:
        """(V, hidden): output rows; the same as `table()` in a tied model."""
        if self.output_rows is None:
            return self.table()
        return torch.cat([self.backbone.get_output_embeddings().weight, self.output_rows().to(self.dtype)])

    @property
    def body(self) -> Any:
        """The backbone without its output head and without PEFT's shell: embeddings in, hidden states out."""
        shell = self.backbone
        return (shell.get_base_model() if hasattr(shell, "get_base_model") else shell).base_model

    @property
    def dtype(self) -> torch.dtype:
        return self.backbone.get_input_embeddings().weight.dtype

    def embed(self, ids: Tensor, table: Tensor, values: Tensor | None = None) -> Tensor:
        """What the body reads: rows of the table, and soft tokens in the places of the placeholders.

        Args:
            ids: (B, S) int64.
            table: (V, hidden), see `table`.
            values: (B, M, width) of a continuous front-end: each row holds as many as the row's ids have placeholders,
                in their order, then padding.

        Returns:
            (B, S, hidden).
        """
        embedded = F.embedding(ids, table)
        if self.soft is None or values is None:
            return embedded
        places = ids == self.vocabulary.first_code
        soft = self.soft(values.to(table.dtype), table[: self.vocabulary.base])  # (B, M, hidden)
        filled = torch.arange(values.shape[1], device=ids.device) < places.sum(1, keepdim=True)
        return embedded.index_put((places,), soft[filled].to(embedded.dtype))

    def hidden_states(
        self,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        *,
        values: Tensor | None = None,
        table: Tensor | None = None,
        all_layers: bool = False,
    ) -> Any:
        """Token ids -> hidden states.

        Args:
            ids: (B, S) int64.
            positions: (B, S) int64, RoPE positions.
            mask: (B, 1, S, S) bool, true where the row's token may look at the column's; None for plain causal
                attention over positions 0, 1, 2, ...
            values: behind placeholders, see `embed`.
            table: `table()`, where the caller has it already.
            all_layers: also return the states after each layer.

        Returns:
            (B, S, hidden) after the final norm; with `all_layers` a pair with the tuple of (B, S, hidden).
        """
        embedded = self.embed(ids, self.table() if table is None else table, values)
        bias = None
        if mask is not None:
            kind = embedded.device.type
            # In the type that attention runs in: another one doubles the time of its backward pass on a CPU.
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embedded.dtype
            bias = torch.zeros(mask.shape, dtype=dtype, device=embedded.device)
            bias.masked_fill_(~mask, torch.finfo(dtype).min)
        output = self.body(
            inputs_embeds=embedded,
            position_ids=None if mask is None else positions,
            attention_mask=bias,
            use_cache=False,
            output_hidden_states=all_layers,
        )
        return (output.last_hidden_state, output.hidden_states) if all_layers else output.last_hidden_state

    def token_losses(self, hidden: Tensor, labels: Tensor, *, table: Tensor | None = None) -> Tensor:
        """Negative log likelihood (M,) in nats of `labels` (M,) at states (M, hidden); logits exist only here."""
        logits = hidden @ (self.output_table() if table is None else table).T
        if logits.dtype != torch.float64:
            logits = logits.float()
        return F.cross_entropy(logits, labels, reduction="none")


def build_tiny(config: TinyConfig, vocabulary: Vocabulary, seed: int) -> Any:
    """A `LlamaForCausalLM` with `vocabulary.base` text rows and attention biases, drawn from `seed`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if min(config.heads, config.hidden) < 1 or config.hidden % (2 * config.heads) or not 1 <= config.rope_theta < 1e12:
        raise UsageError(
            f"{config.hidden} numbers cannot be shared by {config.heads} heads, or turned by {config.rope_theta:g}",
            where="language.tiny",
            remedy="hidden is a multiple of twice the heads, rope_theta lies between 1 and 1e12.",
        )
    torch.manual_seed(seed)
    tokenizer = vocabulary.tokenizer
    backbone = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary.base,
            hidden_size=config.hidden,
            intermediate_size=config.feedforward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=2048,
            rope_theta=config.rope_theta,
            attention_bias=True,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    start_local(backbone, config)
    return backbone


@torch.no_grad()
def start_local(backbone: Any, config: TinyConfig, strength: float = 8.0) -> None:
    """Gives the heads of the lower layers a distance to look back, by their query and key biases.

    With RoPE, constant query q and key k score q^T R(i - j) k. Taking k with equal energy in every fast plane and
    q = R(distance) k makes the score peak at i - j = distance: the head begins as one tap of a convolution (after
    ConViT's initialisation, d'Ascoli et al., ICML 2021), and training may undo it. An ECG's local shapes are then at
    hand from the first step. Nothing of the architecture changes.
    """
    size = config.hidden // config.heads
    planes = torch.arange(size // 2, dtype=torch.float32)
    frequency = config.rope_theta ** (-2 * planes / size)
    fast = (frequency > 0.04).float()  # slow planes cannot tell neighbours apart
    for number, layer in enumerate(backbone.model.layers[: config.local_layers]):
        attention = layer.self_attn
        for head in range(config.heads):
            distance = head * config.heads**number  # taps 32 ms apart in the first layer, dilated in the next ones
            angle = frequency * distance
            amplitude = math.sqrt(strength * math.sqrt(size) / float(fast.sum())) * fast
            rows = slice(head * size, (head + 1) * size)
            attention.k_proj.bias[rows] = torch.cat([amplitude, torch.zeros_like(angle)])
            attention.q_proj.bias[rows] = torch.cat([amplitude * angle.cos(), -amplitude * angle.sin()])


def choose_trained(model: ECGLanguageModel) -> None:
    """Freezes and adapts parameters as `model.config.train` says; wraps the backbone in LoRA where asked."""
    how = model.config.train
    if how == "all":
        return
    from peft import LoraConfig, get_peft_model

    settings = model.config.lora
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        task_type="CAUSAL_LM",
    )
    model.backbone = get_peft_model(model.backbone, lora)
    if how == "lora+norms":
        for module in model.backbone.modules():
            if "norm" in type(module).__name__.lower():  # LayerNorm, LlamaRMSNorm, ...
                module.requires_grad_(True)

"""What a stage must compute and move, counted from the shapes of its models. Plain arithmetic: no torch.

One multiplication and one addition count as two operations. A backward pass costs twice the forward one; where only
adapters train (LoRA) it leaves out the products for the gradients of frozen weights and costs once. Attention counts
every pair of positions that its kernel computes, also those that a mask takes away (Kaplan et al., arXiv 2001.08361,
section 2.1, with the attention term kept and the embedding look-up left out).
"""

from __future__ import annotations

from dataclasses import dataclass

CODES = 313  # tokens of a 10 s ECG
SAMPLES, LEADS = 5000, 12
RECORD_BYTES = 2 * LEADS * SAMPLES  # 16-bit samples of a recording on disk; its header adds under 1 %


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family.

    Attributes:
        head: width of a head.
        key_heads: key and value heads (grouped-query attention).
        vocabulary: rows of the output table, ECG codes among them.
        tied: whether input and output rows are the same.
    """

    hidden: int
    layers: int
    heads: int
    key_heads: int
    head: int
    feedforward: int
    vocabulary: int
    tied: bool = True

    @property
    def layer_weights(self) -> int:
        """Numbers in the seven matrices of a layer."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.key_heads)
        return attention + 3 * self.hidden * self.feedforward

    @property
    def weights(self) -> int:
        """Numbers in all matrices; biases and norms are left out."""
        return self.layers * self.layer_weights + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values that a token leaves behind, at two bytes a number."""
        return 2 * 2 * self.layers * self.key_heads * self.head


def forward(shape: Shape, tokens: float, pairs: float, outputs: float) -> float:
    """Operations of a forward pass.

    Args:
        tokens: positions that are computed.
        pairs: query-key pairs, summed over the sequences: S * S for one of S positions without a cache.
        outputs: positions whose logits are computed.
    """
    products = 2.0 * shape.layers * shape.layer_weights * tokens
    attention = 4.0 * shape.layers * shape.heads * shape.head * pairs
    return products + attention + 2.0 * shape.hidden * shape.vocabulary * outputs


def training(shape: Shape, tokens: float, pairs: float, outputs: float, *, adapters: bool = False) -> float:
    """Operations of forward and backward; with `adapters`, of a frozen model through which gradients pass."""
    return (2.0 if adapters else 3.0) * forward(shape, tokens, pairs, outputs)


def convolution(inputs: int, outputs: int, kernel: int, positions: float) -> float:
    """Operations of a one-dimensional convolution that gives `positions` outputs."""
    return 2.0 * inputs * outputs * kernel * positions


def encode_plain(samples: int = SAMPLES, width: int = 32, mix: int = 256, latent: int = 4) -> float:
    """Operations of our codec's encoder on one recording (`heartllm.codec.networks.PlainEncoder`)."""
    lengths = [-(-samples // 4), -(-samples // 8), -(-samples // 16)]
    lead = (
        convolution(1, width // 2, 9, lengths[0])
        + convolution(width // 2, width, 5, lengths[1])
        + convolution(width, width, 5, lengths[2])
    )
    mixed = convolution(LEADS * width, mix, 1, lengths[2]) + convolution(mix, mix, 3, lengths[2])
    return LEADS * lead + mixed + convolution(mix, latent, 1, lengths[2])

"""Memory, arithmetic and network of a step, computed from a model's sizes; nothing is measured.

    python -m benchmarks.scale       # prints the tables that are in docs/scale.md

What is in memory at the peak of a packed step, by the arrays that the code keeps:

- weights as loaded, trained ones in float32 with gradient and Adam's two moments (16 bytes), the
  autoencoder's encoder in float32;
- for backward, per token of the row and block: the input of each norm, what attention and MLP
  read, queries, keys, values and result of attention, both factors of the MLP; or, checkpointed,
  each block's input, and all of this for the last block;
- torch on a CPU: keys and values of each prompt once more with those of each completion. MLX:
  the projections again as padded rectangles, and the scores of its attention there;
- the most of a chunk of logits and a chunk of features, within `logits_budget` each; sharded,
  states of all processes are within it too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.shapes import MODELS, PAIRS

Kind = Literal["torch", "cuda", "mlx"]
BUDGET = 256 * 2**20
RANK = 8
GB = 1e9
LARGE: dict[str, dict[str, Any]] = {
    "Gemma 2 2B": MODELS["gemma-2-2b"][1],
    "Gemma 2 9B": {
        **{"vocab_size": 256000, "hidden_size": 3584, "intermediate_size": 14336},
        **{"num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8},
        "head_dim": 256,
    },
    "Llama 3.1 70B": {
        **{"vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672},
        **{"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
        "untied": True,
    },
}
"""Models of the tables, by their config.json."""
GPUS = (1, 8, 64)
MACS = (16, 32, 64, 128, 192, 512)
"""GB of memory of M-series Macs; three quarters are a GPU's by default."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model."""

    hidden: int
    inner: int
    layers: int
    heads: int
    queries: int
    """Width of all queries."""
    keys: int
    """Width of all keys."""
    vocabulary: int
    norms: int
    """Of a block."""
    heads_apart: int
    """Output layers that are no embedding."""

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Sizes":
        """The sizes in a config.json; Gemma's four norms are told by its head_dim."""
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        width = config.get("head_dim", hidden // heads)
        return cls(
            hidden=hidden,
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            queries=heads * width,
            keys=config["num_key_value_heads"] * width,
            vocabulary=config["vocab_size"],
            norms=4 if "head_dim" in config else 2,
            heads_apart=int("untied" in config),
        )

    @property
    def linear(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of a block's linear layers."""
        h, q, k, f = self.hidden, self.queries, self.keys, self.inner
        return ((h, q), (h, k), (h, k), (q, h), (h, f), (h, f), (f, h))

    @property
    def block(self) -> int:
        """Weights of a block's linear layers."""
        return sum(rows * columns for rows, columns in self.linear)

    @property
    def parameters(self) -> int:
        """All weights; a tied output layer counts once."""
        embeddings = (1 + self.heads_apart) * self.vocabulary * self.hidden
        return embeddings + self.layers * (self.block + self.norms * self.hidden)

    def products(self, tokens: int, scored: int) -> int:
        """Multiplications of weights: blocks at all tokens, the output layer at scored ones."""
        return self.layers * self.block * tokens + self.hidden * self.vocabulary * scored

    @property
    def adapters(self) -> int:
        """Weights of LoRA on every linear layer of the blocks."""
        return self.layers * RANK * sum(rows + columns for rows, columns in self.linear)


@dataclass(frozen=True)
class Step:
    """A step on pairs of given tokens of prompt, chosen and rejected."""

    sizes: Sizes
    pairs: Sequence[tuple[int, int, int]]
    kind: Kind = "torch"
    width: int = 4
    """Bytes of a number in compute: 4, or 2 for bfloat16."""
    full: bool = False
    checkpoint: bool = False
    features: int = 0
    """d_sae; 0 without an autoencoder."""
    kl: bool = False
    """Whether the reference runs too."""
    norm_kernel: bool = True
    """False for transformers' own norms, which save two float32 arrays each."""

    @property
    def tokens(self) -> int:
        """T, of the packed row."""
        return sum(map(sum, self.pairs))

    @property
    def scored(self) -> int:
        """N, of completions."""
        return sum(chosen + rejected for _, chosen, rejected in self.pairs)

    def weights(self) -> float:
        """Bytes of weights, gradients, moments and encoder."""
        s = self.sizes
        if not self.full:
            trained = 16 * s.adapters + self.width * s.parameters
        else:
            trained = (16 + (2 if self.width == 2 else 0)) * s.parameters
        return trained + self.encoder()

    def encoder(self) -> float:
        """Bytes of the autoencoder's encoder."""
        return 4 * self.sizes.hidden * self.features

    def saved_by_a_block(self) -> float:
        """Bytes that one block keeps for its backward pass."""
        s = self.sizes
        attention = s.queries + 2 * s.keys
        norms = s.norms * s.hidden * (self.width if self.norm_kernel else 8)
        numbers = 2 * s.hidden + attention + s.queries + 2 * s.inner
        return self.tokens * (norms + self.width * numbers) + self._of_attention(attention)

    def _of_attention(self, projected: int) -> float:
        """Bytes that attention over runs adds to that."""
        s = self.sizes
        if self.kind == "cuda":  # one call over the row
            return 0.0
        joined = sum(p + side for p, *sides in self.pairs for side in sides)
        if self.kind == "torch":
            return self.width * joined * 2 * s.keys
        count, prompt = len(self.pairs), max(p for p, *_ in self.pairs)
        side = max(max(sides) for _, *sides in self.pairs)
        places = count * (prompt + 2 * side)
        keys = 2 * count * (prompt + side) * 2 * s.keys
        scores = s.heads * count * (prompt**2 + 2 * side * (prompt + side))
        return self.width * (places * projected + keys + scores)

    def activations(self) -> float:
        """Bytes saved for backward when the forward pass is over."""
        if not self.checkpoint:
            return self.sizes.layers * self.saved_by_a_block()
        inputs = self.sizes.layers * self.tokens * self.sizes.hidden * self.width
        return inputs + self.saved_by_a_block()

    def chunk(self) -> float:
        """Bytes of logits or of features at once."""
        # A float32 head of torch has one buffer of logits, others their softmax and gradients too.
        fused = self.kind == "torch" and self.width == 4 and not self.full and not self.kl
        copies = 1 if fused else 4
        logits = min(BUDGET, 4 * copies * self.scored * self.sizes.vocabulary)
        features = min(BUDGET, 4 * 4 * self.scored * self.features)
        # With the reference's: its softmax on MLX, and what autograd keeps of the KL on torch.
        held = (1.5 if self.kind == "mlx" else 2.5) if self.kl else 1.0
        return max(logits * held, features)

    def memory(self) -> float:
        """Bytes of arrays at the peak."""
        return self.weights() + self.activations() + self.chunk()

    def sharded(self, processes: int) -> float:
        """The same with `shard`: one block gathered."""
        # Full training gathers float32, and a gradient is whole until it is summed.
        gathered = (8 if self.full else self.width) * self.sizes.block
        split = (self.weights() - self.encoder()) / processes + self.encoder()
        return split + gathered + self.activations() + self.chunk()

    def flops(self) -> float:
        """Products forward, for gradients by activations, and with `full` for those by weights."""
        return (6 if self.full else 4) * self.sizes.products(self.tokens, self.scored)

    def network(self, processes: int) -> float:
        """Bytes each process sends in a step: the gradients' sum, float32, by a ring."""
        trained = self.sizes.parameters if self.full else self.sizes.adapters
        return 2 * (processes - 1) / processes * 4 * trained

    def network_sharded(self, processes: int) -> float:
        """Bytes with `shard`: blocks gathered forward and backward, their gradients scattered;
        embeddings scattered, final states gathered and their gradients scattered.

        A trained head gathers states twice, and trained embeddings the gradients of theirs.
        """
        s, width = self.sizes, 4 if self.full else self.width
        blocks = s.layers * (s.block + s.norms * s.hidden)
        trained = blocks if self.full else s.adapters
        rows = (2 * self.tokens + 3 * self.scored) if self.full else self.tokens + 2 * self.scored
        moved = 2 * width * blocks + 4 * trained + processes * width * rows * s.hidden
        return (processes - 1) / processes * moved


def tables() -> str:
    """The tables of docs/scale.md: four pairs of shape A a process, bfloat16, checkpointing."""
    heads = ["", "trains", "GB, 1 process", *(f"of {n}, sharded" for n in GPUS[1:])]
    heads += ["TFLOP", "GB sent, 8", "sharded", "Mac"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, config in LARGE.items():
        for full in (False, True):
            step = Step(Sizes.of(config), PAIRS["A"], "cuda", 2, full, True, 16384)
            sharded = [step.sharded(n) / GB for n in GPUS[1:]]
            mac = next((f"{m} GB" for m in MACS if step.memory() <= 0.75 * m * GB), "–")
            numbers = [step.memory() / GB, *sharded, step.flops() / 1e12]
            numbers += [step.network(8) / GB, step.network_sharded(8) / GB]
            cells = [name, "all" if full else "LoRA", *(f"{x:.3g}" for x in numbers), mac]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())

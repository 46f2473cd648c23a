"""What fits in a machine's memory, computed from the sizes of a model: nothing is measured.

    python -m benchmarks.fits        # prints the table that is in README.md

Bytes counted, for one pair of 1024 tokens a side with --grad-checkpoint, in bfloat16:

- the weights: 2 a parameter; quantised to 4 bits 0.5625 (groups of 64 with scale and bias);
  trained in full 16 (float32 weight, gradient and Adam's two moments) and 2 for the copy in use;
- adapters of rank 8 on all linear modules: 16 a parameter;
- what a checkpointed block saves for backward: its input, 2 × hidden size a token;
- one block at work: 8 × hidden size and 4 × intermediate size a token, float32, with gradients;
- the autoencoder's encoder in float32, 16384 features wide; 2 × 256 MiB for logits and features.

A quarter of the memory is left to the system.
"""

from dataclasses import dataclass

GIB = 2**30
TOKENS = 2 * 1024
MEMORIES = (8, 16, 32, 64)
USABLE = 0.75
FEATURES = 16384
BUDGET = 2 * 256 * 2**20
RANK = 8


@dataclass(frozen=True)
class Shape:
    """Sizes of a model, as its config.json has them."""

    name: str
    parameters: float
    layers: int
    hidden: int
    intermediate: int

    def adapters(self) -> float:
        """Parameters of the adapters: four modules of attention, three of the MLP."""
        return self.layers * RANK * (8 * self.hidden + 3 * (self.hidden + self.intermediate))

    def activations(self) -> float:
        """Bytes saved for backward for one pair, and those of the block being computed."""
        saved = 2 * self.hidden * self.layers
        at_work = 2 * 4 * (8 * self.hidden + 4 * self.intermediate)
        return TOKENS * (saved + at_work)

    def needed(self, kind: str) -> float:
        """Bytes of a run: `full`, `lora`, or `4-bit` for adapters on quantised weights."""
        weights = {"full": 18.0, "lora": 2.0, "4-bit": 0.5625}[kind] * self.parameters
        adapters = 0 if kind == "full" else 16 * self.adapters()
        return weights + adapters + self.activations() + 4 * self.hidden * FEATURES + BUDGET


SHAPES = (
    Shape("SmolLM2-135M", 135e6, 30, 576, 1536),
    Shape("gemma-3-270m", 268e6, 18, 640, 2048),
    Shape("gemma-3-1b", 1.0e9, 26, 1152, 6912),
    Shape("Qwen3-1.7B", 1.72e9, 28, 2048, 6144),
    Shape("gemma-2-2b", 2.61e9, 26, 2304, 9216),
    Shape("gemma-3-4b", 3.88e9, 34, 2560, 10240),
    Shape("Llama-3.1-8B", 8.03e9, 32, 4096, 14336),
    Shape("gemma-2-9b", 9.24e9, 42, 3584, 14336),
)
KINDS = ("full", "lora", "4-bit")


def table() -> str:
    """A row a model: GiB needed by each kind, and which kinds fit which memory."""
    heads = ["GiB needed", *KINDS, *(f"{memory} GB" for memory in MEMORIES)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for shape in SHAPES:
        needed = {kind: shape.needed(kind) / GIB for kind in KINDS}
        fitting = [best(needed, memory) for memory in MEMORIES]
        cells = [shape.name, *(f"{size:.1f}" for size in needed.values()), *fitting]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def best(needed: dict[str, float], memory: float) -> str:
    """The first kind that fits, the most demanding one first; a dash for none."""
    fitting = (kind for kind, size in needed.items() if size <= USABLE * memory)
    return next(fitting, "–")


if __name__ == "__main__":
    print(table())

"""What a framework must be able to do with a model: the `Policy` protocol."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from fpo_core.backend.guidance import Guide
from fpo_core.backend.process_group import ALONE, Group
from fpo_core.config import ObjectiveConfig, OptimiserConfig
from fpo_core.data.batches import Batch
from fpo_core.io.shards import Shard
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.objectives import Part
from fpo_core.loss.online import OnlineTerms
from fpo_core.loss.scores import Scores
from fpo_core.loss.token_scores import TokenScores


@dataclass(frozen=True)
class PolicyInfo:
    """Facts about a loaded model, for checks, logs and reports."""

    backend: str
    device: str
    dtype: str
    quantisation: str | None
    layers: int
    hidden_size: int
    parameters: int
    trained_parameters: int
    fallback: str | None = None
    """Why the plain path is used where the fast step was asked for."""
    frozen: str | None = None
    """What adapters leave frozen that a user may expect them on."""
    virtual: bool = False
    """Whether virtual tokens are trained, so that the start is not the reference."""
    sharded: bool = False
    """Whether each process of the run holds a part of the model alone: then every pass over it is
    one of all processes, which must take the same number of them."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    max_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[int, ...] = ()
    """Tokens that end a completion."""
    guide: Guide | None = None
    """What weighs tokens, beside the policy."""


class SeededBatch(NamedTuple):
    """A forward pass of a step."""

    seed: int
    batch: Batch
    reference: ReferenceBatch
    online: OnlineTerms | None = None
    """What SAIL adds to its losses."""
    counts: bool = True
    """False of a pass that only takes part in those of other processes, over a sharded model."""


OnTokens = Callable[[dict[int, int]], None]
"""Hears of new tokens as they are sampled, by the completion's place among the prompts."""


class Sampler(Protocol):
    """What draws completions of a model."""

    def generate(
        self,
        prompts: list[np.ndarray],
        sampling: Sampling,
        on_tokens: OnTokens | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """Sample a completion of each prompt; the end-of-turn token, where reached, is included.

        A sample is a function of the weights, `sampling`, its prompt and its number, by default how
        many equal prompts stand before it: of the batch only as far as that rounds the logits.
        """
        ...


class Policy(Sampler, Protocol):
    """A model with what is trained of it. Arrays that cross this line are NumPy's."""

    info: PolicyInfo

    def score(
        self,
        batch: Batch,
        reference: ReferenceBatch | None = None,
        objective: ObjectiveConfig | None = None,
        *,
        kl: bool = False,
        entropy: bool = False,
        features: bool = True,
        at_reference: bool = False,
    ) -> Scores:
        """Score a batch without gradient or dropout; see `fpo_core.loss.dense.score`.

        Without `features` nothing of the autoencoders is computed. `at_reference` scores with the
        weights given to `set_reference` in place of the policy's.

        With `kl`, or an objective that needs it, sequential KL against the weights given to
        `set_reference`, which are swapped in for a forward pass: no second model is built.
        """
        ...

    def token_scores(
        self,
        batch: Batch,
        columns: np.ndarray | None = None,
        *,
        features: bool = True,
        reference: bool = False,
    ) -> TokenScores:
        """Score every token of a batch, without gradient or dropout.

        With an autoencoder, unless `features` is off, the means and peaks of its features in each
        sequence; or, with `columns`, indices (c,) of features, these at every token. `reference`
        swaps the weights given to `set_reference` in.
        """
        ...

    def unembed(self, states: np.ndarray) -> np.ndarray:
        """What final norm and output layer make of residual states, less those of a zero state.

        (n, d) -> (n, v) logits: the logit lens of a direction.
        """
        ...

    def prepare_training(self, config: OptimiserConfig, group: Group = ALONE) -> None:
        """Make the optimizer, which sums the gradients of a group's processes."""
        ...

    def seed(self, number: int) -> None:
        """Set the framework's random state, which dropout draws from; 0 ≤ number < 2⁶³."""
        ...

    def accumulate(
        self,
        batch: Batch,
        reference: ReferenceBatch,
        objective: ObjectiveConfig,
        weight: float,
        part: Part | None = None,
        online: OnlineTerms | None = None,
    ) -> Scores:
        """Add the gradient of weight · Σ loss over the pairs of a batch; return its scores.

        With `part`, the share of it that comes through the constraint, or through the rest; with
        `online`, that of SAIL's terms too. An
        objective on the KL runs the weights of `set_reference` first, without gradient. Only an
        objective on D computes features.
        """
        ...

    def accumulate_all(
        self, batches: Iterable[SeededBatch], objective: ObjectiveConfig, weight: float
    ) -> list[Scores]:
        """As `accumulate` for every batch of a step, each after its `seed`; pooled features apart.

        Batches are taken one by one as they are needed. Nothing is read back from the device until
        the gradient is complete: then all scores at once, with the norm that `apply_gradients`
        needs. It or `drop_gradients` must follow.
        """
        ...

    def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
        """Take one optimizer step with the accumulated gradient, clipped; return its norm before.

        Where the norm is not finite no step is taken. Either way the gradient is dropped.
        """
        ...

    def gradient_norm(self) -> float:
        """The norm of the accumulated gradient, summed over processes, which is then dropped."""
        ...

    def drop_gradients(self) -> None:
        """Forget the accumulated gradient."""
        ...

    def perturbed(self, sign: float, *, stay: bool = False) -> AbstractContextManager[None]:
        """Within, the weights are moved by sign · ε along the direction of the next step.

        For an optimizer of zeroth order, as `apply_slope` is. Adapters are restored exactly, the
        model's own weights up to rounding. Those in float32 may `stay` where they are, for the next
        `perturbed` or `apply_slope` to go on from: nothing else may use them until then.
        """
        ...

    def apply_slope(self, slope: float, learning_rate: float, max_norm: float) -> float:
        """Take one step by the loss's derivative along the direction, c; return |c| / √r.

        The square of that is ‖gradient‖² in expectation. Where it is over `max_norm`, c is scaled
        down; where it is not finite no step is taken. The direction is used up either way.
        """
        ...

    def trained(self) -> dict[str, np.ndarray]:
        """The trained weights in float32 by their canonical names (`fpo_core.adapters.lora`).

        Of a sharded policy this and `optimizer_state` hold `Shard`s.
        """
        ...

    def load_trained(self, weights: dict[str, np.ndarray]) -> None:
        """Replace the trained weights."""
        ...

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """Optimizer moments by canonical name with a suffix, and the step count under `step`."""
        ...

    def load_optimizer_state(self, state: dict[str, np.ndarray]) -> None:
        """Replace the optimizer's state."""
        ...

    def set_reference(self, weights: dict[str, np.ndarray] | None) -> None:
        """Trained weights of the model that KL is taken against; None for none."""
        ...

    def save_model(self, folder: Path) -> None:
        """Write the whole model, with its configuration, for transformers and mlx-lm alike.

        Of a sharded policy the configuration alone.
        """
        ...

    def model_shards(self) -> dict[str, Shard]:
        """This process's rows of every weight of a sharded model, by names as in its files."""
        ...

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Predictions in float32 for sequences of equal length: (n, t) -> (n, t, v)."""
        ...

    def values(self, batch: Batch) -> np.ndarray:
        """The value head at every token of sequences, (n, width); see `fpo_core.loss.values`.

        Needs a policy that was opened with `value_head`, as the one below.
        """
        ...

    def accumulate_values(
        self, batch: Batch, rewards: np.ndarray, trace: float, weight: float
    ) -> np.ndarray:
        """Add the gradient of weight · Σ ½ (V − G)² over the states of sequences.

        G are TD(λ)'s targets for rewards (n,), λ = `trace`. Returns the sum of each sequence, (n,).
        """
        ...

    def memory_limit(self) -> int | None:
        """Bytes that the device can hold; None where it does not say."""
        ...

    def peak_memory(self) -> int:
        """Most bytes in use since the policy was made, or since `reset_peak_memory`: on the
        accelerator, or resident on a CPU.

        Where that cannot be told apart (resident memory on macOS), since the process began.
        """
        ...

    def reset_peak_memory(self) -> None:
        """Give freed memory back to the system, and count the peak from here."""
        ...

    def memory_in_use(self) -> dict[str, int]:
        """Bytes that arrays hold (active_memory) and that the framework keeps for reuse
        (cache_memory); empty where it does not say.
        """
        ...

"""One autoencoder in training: parameters, Adam's moments, and what fired when."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fpo_core.arrays.ops import Array
from fpo_core.backend.process_group import Group
from fpo_core.sae_training.gradients import compute_step
from fpo_core.sae_training.kernels import Kernels, Parameters
from fpo_core.sae_training.recipe import Recipe

_LOOK = 10
"""Steps between two looks at which features are dead: each waits for the device."""
_MEMORY = 0.95
"""Weight of the past in running means of the threshold and the loss."""


@dataclass(frozen=True)
class Scaling:
    """How activations x become z = (x − centre) · factor, of mean norm √d_in, for training."""

    centre: np.ndarray
    factor: float
    limit: float
    """The norm above which a token is an outlier, and not trained on."""


class Learner:
    """Takes steps on batches of activations; parameters are of `fpo_core.sae_training.kernels`."""

    def __init__(self, kernels: Kernels, recipe: Recipe, scaling: Scaling, group: Group) -> None:
        self.kernels, self.recipe, self.scaling, self._group = kernels, recipe, scaling, group
        self.parameters: Parameters = {
            name: kernels.array(value) for name, value in initial(recipe).items()
        }
        self._adam = kernels.adam(self.parameters)
        self._centre = kernels.array(scaling.centre)
        self._silent = kernels.array(np.zeros(recipe.d_sae, np.float32))
        self._dead: Array | None = None
        self.step = 0
        self.threshold = self.loss = self.l0 = 0.0
        """Running means over the last steps, for reports and for files before the end."""
        self._latest: list[tuple[int, Array, Array, Array]] = []
        """Steps that the running means lack: number, loss, threshold, features active."""

    @property
    def dead(self) -> int:
        """Features that were silent for long, when last looked at."""
        return 0 if self._dead is None else self._dead.shape[0]

    def learn(self, x: Array) -> Array:
        """One step on this process's share of a batch, x (b, d_in); the batch's loss before it."""
        self.step += 1
        z = (x - self._centre) * self.scaling.factor
        step = compute_step(self.kernels, self.parameters, z, self.recipe, self._dead, self._group)
        gradients = step.gradients | {"W_dec": self._across(step.gradients["W_dec"])}
        parameters = self._adam.step(self.parameters, gradients, self.recipe.rate(self.step))
        parameters["W_dec"] = self.kernels.unit_rows(parameters["W_dec"])
        self.parameters = parameters
        self._silent = self.kernels.ops.where(
            step.fired > 0, 0.0 * self._silent, self._silent + self.recipe.batch_tokens
        )
        self.kernels.finish(self._silent, step.loss, step.threshold, *parameters.values())
        self._latest.append((self.step, step.loss, step.threshold, step.fired.sum()))
        if self.step % _LOOK == 0:
            self.look()
            self._note_dead()
        return step.loss

    def _across(self, gradient: Array) -> Array:
        """A decoder's gradient without its part along each row, which would only change norms."""
        W = self.parameters["W_dec"]
        return gradient - (gradient * W).sum(-1)[:, None] * W

    def look(self) -> None:
        """Bring the running means up to date."""
        for number, loss, threshold, active in self._latest:
            past = min(_MEMORY, 1 - 1 / number)
            self.loss = past * self.loss + (1 - past) * float(loss)
            self.l0 = past * self.l0 + (1 - past) * float(active) / self.recipe.batch_tokens
            if np.isfinite(smallest := float(threshold)):
                self.threshold = past * self.threshold + (1 - past) * smallest
        self._latest = []

    def _note_dead(self) -> None:
        silent = self.kernels.numpy(self._silent)
        (dead,) = np.nonzero(silent >= self.recipe.dead_after)
        self._dead = self.kernels.array(dead.astype(np.int32)) if len(dead) else None

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, as arrays."""
        self.look()
        parameters = {name: self.kernels.numpy(value) for name, value in self.parameters.items()}
        return {
            **parameters,
            **self._adam.state(),
            "silent": self.kernels.numpy(self._silent),
            "dead": self.kernels.numpy(self._dead) if self.dead else np.zeros(0, np.int32),
            "running": np.array([self.loss, self.l0, self.threshold], np.float64),
            "centre": self.scaling.centre,
        }

    def load_state(self, state: Mapping[str, np.ndarray], step: int) -> None:
        """Go on from a state after so many steps."""
        self.step = step
        for name in self.parameters:
            self.parameters[name] = self.kernels.array(state[name])
        self._adam = self.kernels.adam(self.parameters)
        self._adam.load_state(state, step)
        self._silent = self.kernels.array(state["silent"])
        dead = state["dead"]
        self._dead = self.kernels.array(dead) if len(dead) else None
        self.loss, self.l0, self.threshold = map(float, state["running"])


def initial(recipe: Recipe) -> dict[str, np.ndarray]:
    """Random unit decoder rows, W_enc the same, biases 0; the same on every backend."""
    rows = np.random.default_rng(recipe.seed).normal(size=(recipe.d_sae, recipe.d_in))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return {
        "W_enc": rows,
        "b_enc": np.zeros(recipe.d_sae, np.float32),
        "W_dec": rows.copy(),
        "b_dec": np.zeros(recipe.d_in, np.float32),
    }

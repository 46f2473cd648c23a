"""Steps without gradients: LOZO and LOZO-M (Chen et al., arXiv 2410.07698), and MeZO.

    c = [L(X + εZ) − L(X − εZ)] / 2ε,   Z = U Vᵀ,   ĝ = c Z / r,   X ← X − η ĝ

for all weights at once. Of a matrix (m, n), U (m, r) is drawn in every step and V (n, r) every ν
steps; of a vector, and under MeZO of every weight, Z is plain N(0, 1) and r is 1. LOZO-M steps
along N Vᵀ / r, N ← μN + (1 − μ) c U, and N ← N V_oldᵀ V_new / n where V changes. Nothing is held
but U, V and N: the weights are moved in place and back.
"""

import contextlib
import math
from collections.abc import Iterator

import numpy as np

from fpo_core.backend.directions import (
    LEFT,
    RIGHT,
    ROUNDING,
    Dense,
    Direction,
    LowRank,
    Stream,
    matrix_shape,
)
from fpo_core.backend.optimizer_state import check_parts
from fpo_core.backend.parts import Canonical, Trainable
from fpo_core.config import OptimiserConfig


class ZerothOrder:
    """The optimizer of the trained weights, on any framework."""

    def __init__(
        self, trainable: Trainable, config: OptimiserConfig, seed: int, *, float32: bool = True
    ) -> None:
        """`float32` says whether the weights are: others are moved back after each evaluation."""
        self._trainable, self._seed, self._name = trainable, seed, config.optimizer
        self._vectors = {name for name, shape in trainable.shapes().items() if len(shape) < 2}
        self._shapes = {name: matrix_shape(s) for name, s in trainable.shapes().items()}
        self._rank: int | None = config.direction("zo_rank")
        self._interval: int = config.direction("zo_interval") or 1
        self.epsilon: float = config.direction("zo_epsilon")
        self._momentum: float | None = config.direction("zo_momentum")
        self._may_stay = float32 and not trainable.adapters
        self._at = 0.0
        self._step = 0
        self._left: dict[str, np.ndarray] = {}
        self._right: dict[str, np.ndarray] = {}
        self._drawn = -1
        self._mean = {} if self._momentum is None else self._zeros()

    @contextlib.contextmanager
    def perturbed(self, sign: float, *, stay: bool = False) -> Iterator[None]:
        """See `fpo_core.backend.policy.Policy`."""
        trainable, directions = self._trainable, self._directions()
        if trainable.adapters:  # a copy of them is small, and makes the way back exact
            with trainable.swapped(trainable.from_canonical(trainable.canonical())):
                trainable.move(directions, sign * self.epsilon)
                yield
            return
        trainable.move(directions, (sign - self._at) * self.epsilon)
        self._at = 0.0
        try:
            yield
            self._at = sign if stay and self._may_stay else 0.0
        finally:
            if not self._at:
                trainable.move(directions, -sign * self.epsilon)

    def step(self, slope: float, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.backend.policy.Policy.apply_slope`."""
        norm = abs(slope) / math.sqrt(self._rank or 1)
        directions = self._directions()
        self._project()
        updates = {}
        if math.isfinite(norm):
            c = slope * min(1.0, max_norm / max(norm, 1e-12))
            updates = _scaled(self._update(c), -learning_rate)
        if self._at:
            updates = _added(_scaled(directions, -self._at * self.epsilon), updates)
        rounding = int(Stream(self._seed, "", self._step, ROUNDING).raw(0, 1)[0]) >> 1
        self._trainable.move(updates, 1.0, rounding)
        self._at = 0.0
        self._step += 1
        self._left = {}
        return norm

    def _directions(self) -> dict[str, Direction]:
        return {name: self._direction(name) for name in self._shapes}

    def _direction(self, name: str) -> Direction:
        """Z of a weight in the next step."""
        if not self._factored(name):
            return self._dense(name)
        number = self._step // self._interval
        if number != self._drawn:
            self._drawn, self._right = number, {}
        if name not in self._left:
            self._left[name] = self._normals(name, self._step, LEFT)
        if name not in self._right:
            self._right[name] = self._normals(name, number, RIGHT)
        return LowRank(self._left[name], self._right[name])

    def _factored(self, name: str) -> bool:
        return self._rank is not None and name not in self._vectors

    def _normals(self, name: str, number: int, kind: int) -> np.ndarray:
        shape = (self._shapes[name][kind == RIGHT], self._rank_of(name))
        return Stream(self._seed, name, number, kind).normals(0, math.prod(shape)).reshape(shape)

    def _rank_of(self, name: str) -> int:
        return min(self._rank or 1, *self._shapes[name])

    def _dense(self, name: str) -> Dense:
        stream, width = Stream(self._seed, name, self._step, LEFT), self._shapes[name][1]

        def rows(start: int, stop: int) -> np.ndarray:
            return stream.normals(start * width, (stop - start) * width).reshape(-1, width)

        return Dense(rows)

    def _update(self, c: float) -> dict[str, Direction]:
        """ĝ of each weight, or its running mean."""
        updates: dict[str, Direction] = {}
        for name in self._shapes:
            direction = self._direction(name)
            if isinstance(direction, LowRank):
                left = self._averaged(name, c * direction.left) / self._rank_of(name)
                updates[name] = LowRank(left, direction.right)
            elif self._momentum is None:
                updates |= _scaled({name: direction}, c)
            else:
                whole = c * direction.rows(0, self._shapes[name][0])
                mean = self._averaged(name, whole)
                updates[name] = Dense(lambda start, stop, mean=mean: mean[start:stop])
        return updates

    def _averaged(self, name: str, left: np.ndarray) -> np.ndarray:
        """cU, or the running mean N that takes it in."""
        if self._momentum is None:
            return left
        mu = self._momentum
        self._mean[name] = (mu * self._mean[name] + (1 - mu) * left).astype(np.float32)
        return self._mean[name]

    def _project(self) -> None:
        """Express N by the V of the interval that begins with the next step, if one does."""
        if not self._mean or self._step == 0 or self._step % self._interval:
            return
        number = self._step // self._interval
        for name in filter(self._factored, self._shapes):
            old, new = (self._normals(name, k, RIGHT) for k in (number - 1, number))
            self._mean[name] = projected(self._mean[name], old, new)

    def _zeros(self) -> dict[str, np.ndarray]:
        return {name: np.zeros(self._mean_shape(name), np.float32) for name in self._shapes}

    def _mean_shape(self, name: str) -> tuple[int, int]:
        rows, columns = self._shapes[name]
        return (rows, self._rank_of(name)) if self._factored(name) else (rows, columns)

    def drop_gradients(self) -> None:
        """Nothing was accumulated."""

    def state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy.optimizer_state`."""
        means = {f"{name}.n": mean for name, mean in self._mean.items()}
        return {"step": np.array(self._step, np.int64), **means}

    def load_state(self, state: Canonical) -> None:
        """See `fpo_core.backend.policy.Policy.load_optimizer_state`."""
        parts = {f"{name}.n": mean.shape for name, mean in self._mean.items()}
        check_parts(state, self._name, parts)
        self._step = int(state["step"])
        self._left, self._drawn = {}, -1
        self._mean = {name: np.array(state[f"{name}.n"]) for name in self._mean}


def projected(mean: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """N V_oldᵀ V_new / n: the mean N V_oldᵀ by a new V, of which V Vᵀ ≈ r I and VᵀV ≈ n I.

    (m, r), (n, r), (n, r) -> (m, r).
    """
    return (mean @ (old.T @ new) / len(new)).astype(np.float32)


def _scaled(directions: dict[str, Direction], factor: float) -> dict[str, Direction]:
    """Each direction times a factor."""
    scaled: dict[str, Direction] = {}
    for name, z in directions.items():
        if isinstance(z, LowRank):
            scaled[name] = LowRank(np.float32(factor) * z.left, z.right)
        else:
            scaled[name] = Dense(lambda i, j, z=z: np.float32(factor) * z.rows(i, j))
    return scaled


def _added(first: dict[str, Direction], second: dict[str, Direction]) -> dict[str, Direction]:
    """The sum of directions under the same V; what `second` lacks stays as it is."""
    total = dict(first)
    for name, b in second.items():
        a = first[name]
        if isinstance(a, LowRank) and isinstance(b, LowRank):
            total[name] = LowRank(a.left + b.left, a.right)
        elif isinstance(a, Dense) and isinstance(b, Dense):
            total[name] = Dense(lambda i, j, a=a, b=b: a.rows(i, j) + b.rows(i, j))
    return total

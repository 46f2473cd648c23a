"""FedPepTAO's server step: momentum with a control variate a client (arXiv 2310.15080).

The step as printed was not within reach; this follows the released code:

    w̄ = Σ p_i w_i, p_i = n_i / Σn        Δ_t = w_{t−1} − w̄
    c_i' = c_i − c + (w_{t−1} − w_i) / (steps_i · lr)
    c += (present / all) · Σ q_i (c_i' − c_i), q_i = steps_i / Σsteps
    from round 2:  v_i = 0.9 v + 0.1 (Δ_{t−1} − Δ_t) + c − c_i'
                   w = Σ p_i (w̄ − η v_i),  v = Σ p_i v_i,  η = 0.05 · 0.99^(t−2)

One fault of that code is corrected: there one v is handed from client to client and each starts
from what the one before made of it; here all start from the same. Then the means over clients are
v = 0.9 v + 0.1 (Δ_{t−1} − Δ_t) + c − Σ p_i c_i' and w = w̄ − η v, which is what is computed. What
stays as released: momentum of the *difference* of successive updates, whose sign turns against the
last one; control variates that never enter the clients' own steps. Where all clients are present
and p = q, c − Σ p_i c_i' is 0: they act under partial participation and unequal weights alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fpo_core.federated.weight_files import Weights, read_weights, write_weights


@dataclass(frozen=True)
class Update:
    """What a client sends after a round."""

    client: str
    weights: Weights
    pairs: int
    """n_i, which it trained on."""
    steps: int
    """Optimizer steps of the round."""


@dataclass
class PeptaoState:
    """What the server remembers between rounds; everything in float32 by canonical name."""

    learning_rate: float
    """The clients' own, by which their steps are undone."""
    clients: int
    """All clients, present or not."""
    server_rate: float = 0.05
    momentum: float = 0.9
    decay: float = 0.99
    round: int = 0
    v: Weights = field(default_factory=dict)
    delta: Weights = field(default_factory=dict)
    """Δ of the round before."""
    c: Weights = field(default_factory=dict)
    c_i: dict[str, Weights] = field(default_factory=dict)

    def step(self, before: Weights, updates: Sequence[Update]) -> Weights:
        """The weights of the next round, from those that the clients started from."""
        self.round += 1
        mean = weighted_mean([u.weights for u in updates], [u.pairs for u in updates])
        delta = {name: before[name] - mean[name] for name in mean}
        self._control(before, updates)
        result = mean if self.round == 1 else self._moved(mean, delta, updates)
        self.delta = delta
        return {name: value.astype(np.float32) for name, value in result.items()}

    def _control(self, before: Weights, updates: Sequence[Update]) -> None:
        """Move c and the present clients' c_i."""
        share = len(updates) / self.clients
        total = sum(u.steps for u in updates)
        for name in before:
            c = self.c.get(name, np.float32(0))
            moved = np.zeros_like(before[name])
            for update in updates:
                own = self.c_i.setdefault(update.client, {})
                slope = (before[name] - update.weights[name]) / (update.steps * self.learning_rate)
                new = own.get(name, np.float32(0)) - c + slope
                moved += update.steps / total * (new - own.get(name, np.float32(0)))
                own[name] = new.astype(np.float32)
            self.c[name] = (c + share * moved).astype(np.float32)

    def _moved(self, mean: Weights, delta: Weights, updates: Sequence[Update]) -> Weights:
        rate = self.server_rate * self.decay ** (self.round - 2)
        variates = [self.c_i[update.client] for update in updates]
        own = weighted_mean(variates, [update.pairs for update in updates])
        for name in mean:
            turn = self.delta[name] - delta[name]
            v = self.momentum * self.v.get(name, np.float32(0)) + (1 - self.momentum) * turn
            self.v[name] = (v + self.c[name] - own[name]).astype(np.float32)
        return {name: mean[name] - rate * self.v[name] for name in mean}

    def save(self, path: Path) -> None:
        """Write what is remembered as safetensors."""
        arrays = {"round": np.array([self.round], np.float32)}
        kinds = {"v": self.v, "delta": self.delta, "c": self.c}
        kinds |= {f"c_i/{client}": weights for client, weights in self.c_i.items()}
        for kind, weights in kinds.items():
            arrays |= {f"{kind}|{name}": w for name, w in weights.items()}
        write_weights(path, arrays)

    def load(self, path: Path) -> None:
        """Read it back; TrainingError where the file is damaged."""
        self.v, self.delta, self.c, self.c_i = {}, {}, {}, {}
        for key, array in read_weights(path).items():
            if key == "round":
                self.round = int(array[0])
                continue
            kind, _, name = key.rpartition("|")  # a client's name may hold one
            client = kind.removeprefix("c_i/")
            kinds = {"v": self.v, "delta": self.delta, "c": self.c}
            target = kinds[kind] if kind in kinds else self.c_i.setdefault(client, {})
            target[name] = array


def weighted_mean(weights: Sequence[Mapping[str, np.ndarray]], counts: Sequence[float]) -> Weights:
    """Σ n_i w_i / Σ n by name, as Flower's FedAvg sums it."""
    total = sum(counts)
    mean: Weights = {}
    for of_client, count in zip(weights, counts, strict=True):
        for name, value in of_client.items():
            part = value * np.float32(count / total)
            mean[name] = mean[name] + part if name in mean else part
    return mean

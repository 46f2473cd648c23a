"""What a federation came to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo.results import Result, Table


def _pairs_of(values: Mapping[str, float]) -> str:
    """The pairs that a client's accuracies are of, in words."""
    return f"{values['pairs']:.0f} {'held out' if values['held_out'] else 'trained on'}"


@dataclass(frozen=True, kw_only=True)
class Federation(Result):
    """How a federation went."""

    output: Path
    """`adapter` is the server's; `clients/` hold each client's pairs, and its own adapter."""
    rounds: list[dict[str, Any]]
    """Of each round: clients that took part, those left out and why, bytes, mean loss."""
    blocks: list[int] | None
    """The blocks that are exchanged; None for all."""
    clients: dict[str, dict[str, float]]
    """Accuracies by client, of the weights exchanged beside its own others.

    On held-out pairs where `held_out` is 1, else on those that it trained on.
    """

    @property
    def bytes_sent(self) -> int:
        """Array bytes that the rounds sent, both ways, without Flower's envelopes."""
        return sum(r["bytes_up"] + r["bytes_down"] for r in self.rounds)

    @property
    def mixture(self) -> float:
        """Accuracy over the measured pairs of all clients together."""
        pairs = [values["pairs"] for values in self.clients.values()]
        accuracies = [values["accuracy"] for values in self.clients.values()]
        return float(np.average(accuracies, weights=pairs))

    @property
    def worst(self) -> str:
        """The client with the lowest accuracy."""
        return min(self.clients, key=lambda name: self.clients[name]["accuracy"])

    def table(self) -> Table:
        """A client a row, and all together."""
        rows = [
            (name, _pairs_of(v), f"{v['accuracy']:.3f}", f"{v['reward_accuracy']:.3f}")
            for name, v in self.clients.items()
        ]
        below = (
            f"{len(self.rounds)} rounds, {self.bytes_sent / 2**20:.2f} MiB sent",
            f"mixture {self.mixture:.3f}, worst {self.worst}",
        )
        return Table(("client", "pairs", "accuracy", "reward accuracy"), rows, below)

    def to_mapping(self) -> dict[str, Any]:
        """The federation as JSON values."""
        return {
            "output": str(self.output),
            "rounds": self.rounds,
            "blocks": self.blocks,
            "clients": self.clients,
            "bytes_sent": self.bytes_sent,
            "mixture": self.mixture,
            "worst": self.worst,
        }

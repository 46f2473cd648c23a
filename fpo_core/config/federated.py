"""Settings of `federate`: clients, rounds, the server's strategy, what is exchanged."""

from dataclasses import dataclass
from typing import Literal

from fpo_core.config.fields import Settings, like, setting
from fpo_core.config.runs import TrainConfig
from fpo_core.config.training import AdapterConfig
from fpo_core.errors import ConfigError

_WHOLE_RUN = (
    *("dry_run", "allow_change", "save_every", "steps_per_eval", "best_metric"),
    *("max_perplexity", "max_kl", "text", "prompts", "report_to", "push_to_hub"),
)
"""Settings of `train` that ask for what a federation does not do."""
StrategyName = Literal["fedavg", "fedavgm", "fedadam", "fedprox", "fedpeptao"]


@dataclass(frozen=True, kw_only=True)
class FederationConfig(Settings):
    """What a federation does, besides what each client trains."""

    strategy: StrategyName = setting(
        "fedavg", help="What the server makes of the clients' weights; all but fedpeptao Flower's."
    )
    clients: int = setting(4, help="Clients that the pairs are divided among.", least=1)
    client_share: float = setting(
        1.0, help="Share of the clients that train in a round.", above=0.0, most=1.0
    )
    rounds: int = setting(5, help="Rounds of local steps and exchange.", least=1)
    local_iters: int = setting(10, help="Optimiser steps of a client in a round.", least=1)
    partition: str = setting(
        "even",
        help="How simulated clients share the pairs: even, or dirichlet:A over the values of by, "
        "the more unequal the smaller A.",
    )
    by: str | None = setting(None, help="Column whose values a dirichlet partition divides by.")
    layers: Literal["all", "score", "random"] = setting(
        "all",
        help="Blocks whose weights are exchanged, the others staying each client's own: all, those "
        "of FedPepTAO's highest score, or as many at random.",
    )
    layer_share: float = setting(
        0.5, help="Share of the blocks that score and random choose.", above=0.0, most=1.0
    )
    server_learning_rate: float | None = setting(
        None,
        help="Step of the server: by default 1 (fedavgm), 0.001 (fedadam), 0.05 (fedpeptao).",
        above=0.0,
    )
    server_momentum: float = setting(
        0.9, help="Momentum of the server in fedavgm and fedpeptao.", least=0.0, most=0.9999
    )
    round_timeout: float = setting(
        3600.0, help="Seconds that a deployed server waits for a round's clients.", above=0.0
    )
    proximal_mu: float = setting(
        0.1, help="Pull of fedprox towards the round's start, over a client's rate.", least=0.0
    )

    secure_aggregation: bool = setting(
        False,
        help="Mask updates by Flower's SecAgg+, so that the server is sent their mean alone; "
        "fedavg over all layers.",
    )
    reconstruction_threshold: float = setting(
        0.67,
        help="Share of a round's clients that secure aggregation needs to the end.",
        above=0.5,
        most=1.0,
    )
    clipping_range: float = setting(
        8.0,
        help="Largest absolute weight that secure aggregation takes; steps are as fine as it is "
        "small.",
        above=0.0,
    )
    max_pairs: int = setting(
        1000,
        help="Most pairs of a client that secure aggregation takes; steps are as fine as it is "
        "small.",
        least=1,
    )

    def check(self) -> None:
        """A column needs a partition that reads it; secure aggregation hides single updates."""
        divides = self.partition.startswith("dirichlet")
        if divides != (self.by is not None):
            raise ConfigError(
                f"partition is {self.partition} while by is {self.by}: a dirichlet partition takes "
                "the column to divide by, and an even one none"
            )
        hidden = {
            "strategy": self.strategy != "fedavg",
            "layers": self.layers != "all",
            "clients": self.clients < 2,
        }
        for name in (name for name, applies in hidden.items() if applies):
            if self.secure_aggregation:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, which secure_aggregation does not take: it "
                    "hides the updates of two clients or more behind the mean of fedavg"
                )


@dataclass(frozen=True, kw_only=True)
class FederateConfig(FederationConfig, TrainConfig):
    """Settings of `federate`."""

    freeze_a: bool = like(AdapterConfig, "freeze_a", default=True)

    def check(self) -> None:
        """What needs a whole run, the clients' gradients or another's adapter is refused."""
        for name in ("iters", "epochs"):
            if getattr(self, name) is not None:
                raise ConfigError(f"{name} is set, but a federation takes rounds and local_iters")
        for name in _WHOLE_RUN:
            if getattr(self, name) != getattr(TrainConfig, name):
                raise ConfigError(
                    f"{name} is {getattr(self, name)}, which federate does not take: it trains at "
                    "once, measures at its end alone, and leaves its result on this disk"
                )
        refused = {
            "fine_tune_type": self.fine_tune_type in ("full", "dora"),
            "optimizer": self.zeroth_order,
            "adapter": self.adapter is not None,
            "online": self.online is not None,
            "early_stopping": bool(self.early_stopping),
            "constraint_share": self.constraint_share is not None,
            "degree_weight": bool(self.degree_weight),
        }
        for name in (name for name, applies in refused.items() if applies):
            raise ConfigError(
                f"{name} is {getattr(self, name)}, which federate does not take: clients train "
                "lora, prompt or prefix from the bare model, with gradients, for a number of steps"
            )
        if self.needs_kl:
            raise ConfigError(
                f"objective is {self.objective}, which compares with the reference in every step: "
                "federate takes objectives with a stored reference"
            )

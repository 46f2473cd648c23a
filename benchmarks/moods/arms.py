"""What is compared: objectives with and without the supervised term, each tuned over one grid."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RATES = (1.5e-4, 3e-4, 6e-4)
"""Learning rates that every arm is tuned over."""
STRONGER = 4.0
"""What multiplies an arm's own β, at its best rate: the second thing that is tuned."""
RPO = 0.3
"""Weight of the supervised term where an arm has it."""


@dataclass(frozen=True)
class Arm:
    """An objective with settings; what is tuned is left out."""

    objective: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def beta(self) -> float:
        """The library's β, which tuning starts from."""
        return BETAS[self.objective]

    def tuned(self) -> Iterator[dict[str, Any]]:
        """The rates, at the library's β."""
        yield from ({"learning_rate": rate, "beta": self.beta} for rate in RATES)


BETAS = {"fpo": 2.0, "dpo-norm": 2.0, "simpo": 2.0, "dpo": 0.1, "tdpo2": 0.1}
_RPO = (("rpo_alpha", RPO),)
ARMS = {
    "fpo": Arm("fpo"),
    "fpo + sft": Arm("fpo", _RPO),
    "dpo + sft": Arm("dpo", _RPO),
    "dpo-norm + sft": Arm("dpo-norm", _RPO),
    "sft": Arm("dpo-norm", (("rpo_alpha", 100.0),)),
    "dpo-norm": Arm("dpo-norm"),
    "dpo": Arm("dpo"),
    "tdpo2": Arm("tdpo2"),
    "simpo": Arm("simpo"),
    "simpo + sft": Arm("simpo", _RPO),
}
"""In the order in which they run. `sft` is the supervised term alone: 100 times the preference's,
whose scale Adam takes out."""

"""What is compared: objectives with and without the supervised term, each tuned over one grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WEIGHT, HEAVIER = 0.3, 1.0
"""Weight of the supervised term where an arm has it, and another that is tried at the best rate."""
STRONGER = 4.0
"""What multiplies the β of the other arms at their best rate: the second thing that is tuned."""


@dataclass(frozen=True)
class Arm:
    """An objective with settings; what is tuned is not among them."""

    objective: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def second(self, beta: float) -> dict[str, Any]:
        """What is tried beside the best rate, from the β of the first runs; empty for nothing."""
        weight = self.settings.get("rpo_alpha")
        if weight is None:
            return {"beta": STRONGER * beta}
        return {"rpo_alpha": HEAVIER} if weight == WEIGHT else {}


_SFT = {"rpo_alpha": WEIGHT}
ARMS = {
    "fpo": Arm("fpo"),
    "fpo + sft": Arm("fpo", _SFT),
    "dpo + sft": Arm("dpo", _SFT),
    "dpo-norm + sft": Arm("dpo-norm", _SFT),
    "sft": Arm("dpo-norm", {"rpo_alpha": 100.0}),
    "dpo-norm": Arm("dpo-norm"),
    "dpo": Arm("dpo"),
    "tdpo2": Arm("tdpo2"),
    "simpo": Arm("simpo"),
    "simpo-kl": Arm("simpo-kl"),
    "simpo + sft": Arm("simpo", _SFT),
}
"""In the order in which they run. `sft` is the supervised term alone: 100 times the preference's,
whose scale Adam takes out."""
CONTRASTS = ("dpo", "dpo-norm", "simpo", "simpo-kl", "tdpo2")
"""What fpo is compared with, named before anything was measured."""

"""What is compared: objectives with and without the supervised term, each tuned over one grid."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from fpo_core.config import LEARNING, TrainConfig

WEIGHT, HEAVIER = 0.3, 1.0
"""Weight of the supervised term where an arm has it, and another that is tried at the best rate."""
STRONGER = 4.0
"""What multiplies the β of the other arms at their best rate: the second thing that is tuned."""


@dataclass(frozen=True)
class Arm:
    """An objective with settings; what is tuned is not among them."""

    objective: str
    settings: dict[str, Any] = field(default_factory=dict)
    encoder: str = ""
    """In place of the run's autoencoder, as `controls` names them."""
    features: str = ""
    """What D is restricted to, as `feature_control` names it."""

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
_SHARE = {"constraint_share": 0.5, "normalize_d": True, "steps_per_eval": 13}
ABLATIONS = {
    "fpo: alpha 0": Arm("fpo", {"alpha": 0.0}),
    "fpo: alpha / 10": Arm("fpo", {"alpha": 0.5}),
    "fpo: alpha × 10": Arm("fpo", {"alpha": 50.0}),
    "fpo: no stop-gradient": Arm("fpo", {"stop_gradient": False}),
    "fpo: k 10": Arm("fpo", {"k": 10}),
    "fpo: k 200": Arm("fpo", {"k": 200}),
    "fpo: random encoder": Arm("fpo", encoder="random encoder"),
    "fpo: hidden state": Arm("fpo", {"k": 10_000}, encoder="hidden state"),
    "fpo: share 0.5": Arm("fpo", _SHARE),
    "fpo: share 0.5 random encoder": Arm("fpo", _SHARE, encoder="random encoder"),
    "fpo: share 0.5 hidden state": Arm("fpo", {"k": 10_000} | _SHARE, encoder="hidden state"),
}
"""FPO as it was tuned, with one thing changed: the constraint, and what it is on. The hidden state
is compared in all of its dimensions; at a share, α is held where the constraint's gradient is half
of the preference's, so that encoders are compared at equal strength."""
BLOCKS = {
    "fpo: block 1": Arm("fpo", encoder="block-1"),
    "fpo: block 3": Arm("fpo", encoder="block-3"),
}
"""The same with the autoencoder of another block, which the world's model has."""
_HELD = {"constraint_share": 0.5, "steps_per_eval": 12}
CONTROLLED = {
    "fpo: exclamation marks": Arm("fpo", _HELD, features="exclamation"),
    "fpo: features at random": Arm("fpo", _HELD, features="random"),
}
"""The same with D on the features of exclamation marks, or on as many others, at equal strength."""
_HARDER = _HELD | {"constraint_share": 2.0}
CONTROLLED_HARDER = {
    f"{name} at share 2": Arm("fpo", _HARDER, features=arm.features)
    for name, arm in CONTROLLED.items()
}
"""With the constraint's gradient at twice the preference's in place of half."""
_UNSET = ("rank", "scale", "num_layers", "batch_size", "iters", "epochs", "warmup", "normalize_d")
_BARE = {
    f.name: f.default for f in dataclasses.fields(TrainConfig) if f.name in (*_UNSET, "preset")
}
DEFAULTS = {
    "default adapters": Arm("fpo", _BARE),
    "default full": Arm("fpo", _BARE | {"fine_tune_type": "full"}),
}
"""What `fpo train` does where nothing is set: an epoch, all blocks. Not tuned here."""
VARIED = {
    f"{name} on MLX": Arm("fpo", arm.settings | {"backend": "mlx"})
    for name, arm in DEFAULTS.items()
} | {
    f"{kind} at {settings['learning_rate']:g}": Arm(
        "fpo", DEFAULTS[f"default {kind}"].settings | {"learning_rate": settings["learning_rate"]}
    )
    for kind, settings in LEARNING["default"].items()
}
"""The same on the other backend, and at the rates of SmolLM2's width, whatever the model's."""
UNTUNED = DEFAULTS | VARIED
EVERY = ARMS | ABLATIONS | BLOCKS | CONTROLLED | CONTROLLED_HARDER | UNTUNED
"""Every arm by its name, in the order of the committed rows."""
CONTRASTS = ("dpo", "dpo-norm", "simpo", "simpo-kl", "tdpo2")
"""What fpo is compared with, named before anything was measured."""

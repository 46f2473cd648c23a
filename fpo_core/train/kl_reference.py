"""The reference in memory, for objectives on the KL, which read its distribution in every step."""

from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.events import Event, Sink


def hold_reference(policy: Policy, config: TrainConfig, emit: Sink) -> None:
    """Keep the weights of a policy at its start as the reference, where the objective is on the KL.

    With adapters these are the adapters' weights, swapped in for a pass: no second model. Full
    fine-tuning holds a copy of all it trains, and a warning event says so.
    """
    if not config.needs_kl:
        return
    weights = policy.trained()
    policy.set_reference(weights)
    if config.fine_tune_type == "full":
        size = sum(weight.nbytes for weight in weights.values()) / 2**20
        text = (
            f"the objective {config.objective} asks the reference in every step: full fine-tuning "
            f"holds a frozen copy of the trained weights for it ({size:.0f} MiB)"
        )
        emit(Event("warning", 0, {"message": text}))

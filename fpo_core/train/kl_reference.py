"""The reference in memory: for objectives and bounds on the KL, and for an online run's samples."""

from fpo_core.backend.policy import Policy
from fpo_core.backend.reference_weights import reference_weights
from fpo_core.config import TrainConfig
from fpo_core.events import Event, Sink


def hold_reference(policy: Policy, config: TrainConfig, emit: Sink) -> None:
    """Keep a policy's weights at its start as the reference, for the KL and for fresh samples.

    With adapters these are the adapters' weights, swapped in for a pass: no second model. Full
    fine-tuning holds a copy of all it trains, and a warning event says so.
    """
    if not (config.needs_kl or config.online or config.max_kl is not None):
        return
    weights = reference_weights(policy)
    policy.set_reference(weights)
    if config.fine_tune_type == "full":
        size = sum(weight.nbytes for weight in weights.values()) / 2**20
        asking = "online training" if config.online else "max_kl"
        asking = f"the objective {config.objective}" if config.needs_kl else asking
        text = (
            f"{asking} asks the reference again and again: full fine-tuning holds a frozen copy of "
            f"the trained weights for it ({size:.0f} MiB)"
        )
        emit(Event("warning", 0, {"message": text}))

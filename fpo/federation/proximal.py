"""FedProx's pull towards the weights that a round began with."""

from typing import Any

from fpo_core.backend.policy import Policy


class Proximal:
    """A policy whose steps also move weights towards those at its creation.

    FedProx (Li et al., arXiv 1812.06127) adds μ/2 ‖w − w_0‖² to the loss. As with AdamW's decay,
    the term stays out of the optimizer's moments: w ← w − lr · μ (w − w_0) after each step.
    """

    def __init__(self, policy: Policy, mu: float) -> None:
        self._policy, self._mu, self._anchor = policy, mu, policy.trained()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the policy's."""
        return getattr(self._policy, name)

    def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.backend.policy.Policy`."""
        norm = self._policy.apply_gradients(learning_rate, max_norm)
        pull = learning_rate * self._mu
        weights = self._policy.trained()
        self._policy.load_trained(
            {name: w - pull * (w - self._anchor[name]) for name, w in weights.items()}
        )
        return norm

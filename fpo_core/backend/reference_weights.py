"""The weights under which a policy at its start is its reference."""

import contextlib
from collections.abc import Iterator

import numpy as np

from fpo_core.adapters.virtual_tokens import without_virtual_tokens
from fpo_core.backend.policy import Policy


def reference_weights(policy: Policy) -> dict[str, np.ndarray]:
    """A copy of what a policy at its start trains, less its virtual tokens."""
    return without_virtual_tokens(policy.trained())


@contextlib.contextmanager
def as_reference(policy: Policy) -> Iterator[None]:
    """Within, a policy at its start is the reference: adapters add nothing yet, virtual tokens are
    taken away.
    """
    if not policy.info.virtual:
        yield
        return
    weights = policy.trained()
    policy.load_trained(without_virtual_tokens(weights))
    try:
        yield
    finally:
        policy.load_trained(weights)

"""The logit lens of features: which tokens a feature's decoder direction promotes."""

from collections.abc import Sequence

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.sae.sae import Sae

_AT_ONCE = 16
"""Directions whose logits over the vocabulary are held at a time."""
_RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Sites whose activations are, or are added to, the residual stream."""


def promoted_tokens(
    policy: Policy, sae: Sae, site: str, features: Sequence[int], count: int
) -> list[list[int]] | None:
    """Token ids with the largest logits of W_dec[i] through final norm and head, by feature.

    None where the autoencoder has no decoder, or one that does not write to the residual stream.
    """
    if sae.W_dec is None or site not in _RESIDUAL or sae.d_in != policy.info.hidden_size:
        return None
    promoted: list[list[int]] = []
    for at in range(0, len(features), _AT_ONCE):
        batch = features[at : at + _AT_ONCE]
        directions = np.concatenate([sae.W_dec[i : i + 1] for i in batch], dtype=np.float32)
        logits = policy.unembed(directions)
        top = np.argpartition(-logits, count, axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(logits, top, 1), axis=1, kind="stable")
        promoted += np.take_along_axis(top, order, 1).tolist()
    return promoted

"""The loss of SPO's degrees: how much of a completion was removed, told from the policy's states.

Self-supervised preference optimization (arXiv 2409.17791), in our reading: docs/method.md.
"""

import dataclasses

import numpy as np

from fpo_core.arrays.ops import Array, Ops
from fpo_core.loss.logps import token_logps
from fpo_core.loss.scores import Scores

DEGREE_HEAD = "degree_head.weight"
"""Canonical name of the head among the trained weights, (K, d)."""


def with_degrees(xp: Ops, scores: Scores, means: Array, head: Array, levels: np.ndarray) -> Scores:
    """The scores, with −log softmax(W h̄)[level] of each variant, and whether that is the largest.

    `means` are the mean final states h̄ (2b, d) of the variants, `head` is W (K, d), `levels` are
    (2b,) whole numbers from 0 to K − 1.
    """
    logits = xp.as_float(means) @ xp.as_float(head).T
    labels = xp.asarray(levels, logits)
    level = xp.take_along_axis(logits, labels[:, None], -1)
    # Alone at the top: the first head, all zeros, tells nothing.
    rivals = xp.as_float(logits >= level).sum(-1)
    hit = xp.as_float(rivals == 1)
    return dataclasses.replace(scores, degree=-token_logps(xp, logits, labels), degree_hit=hit)

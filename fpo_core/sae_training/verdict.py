"""What the measurements of a trained autoencoder say, in sentences."""

from collections.abc import Sequence
from typing import Any

from fpo_core.sae.explained_variance import FITS, Fit, Verdict, judge
from fpo_core.sae_training.kernels import Kernels
from fpo_core.sae_training.recipe import TOKENS_PER_FEATURE, Recipe

_DEAD, _L0, _GAP, _FALLING = 0.1, 0.1, 1.25, 0.03
"""Dead share, relative difference of L0 from k, held-out over training FVU, and fall of the loss
over the second quarter of the steps from which each is reported."""
DUPLICATE = 0.9
"""Cosine of two decoder rows from which they are duplicates."""
_ROWS = 1024


def judge_training(
    fit: Fit, recipe: Recipe, distinct: int, events: Sequence[dict[str, Any]], hook: str
) -> Verdict:
    """The conclusion on held-out texts; `events` are those of the log."""
    verdict = judge(fit, None, recipe.d_sae)
    losses = {e["step"]: e["hooks"][hook]["fvu"] for e in events if e["kind"] == "sae"}
    return Verdict(verdict.word, (*verdict.reasons, *_remarks(fit, recipe, distinct, losses)))


def _remarks(fit: Fit, recipe: Recipe, distinct: int, losses: dict[int, float]) -> list[str]:
    remarks = []
    if fit.dead_share > _DEAD:
        remarks.append(f"{fit.dead_share:.0%} of the features never fire: lower d_sae")
    if abs(fit.l0 / recipe.k - 1) > _L0:
        # Only a threshold is set on held-out texts; topk falls short where fewer are above 0.
        advice = "lower k" if recipe.architecture == "topk" else "hold out more texts"
        remarks.append(
            f"{fit.l0:.1f} features are active per token where k is {recipe.k}: {advice}"
        )
    training = losses[max(losses)] if losses else fit.variance_unexplained
    poor = fit.variance_unexplained > FITS / 2  # else more texts or tokens would change little
    if poor and fit.variance_unexplained > _GAP * training:
        remarks.append(
            f"{training:.0%} is unexplained in training: it learnt these texts, so give more "
            "different ones (text) or lower d_sae"
        )
    elif poor and _still_falling(losses, recipe.steps):
        remarks.append("the loss was still falling when the rate began to: more tokens would help")
    if distinct < TOKENS_PER_FEATURE * recipe.d_sae:
        remarks.append(
            f"{distinct:,} different tokens are few for {recipe.d_sae} features: give more texts"
        )
    return remarks


def _still_falling(losses: dict[int, float], steps: int) -> bool:
    if len(losses) < 8:
        return False
    quarter, half = (
        losses[min(losses, key=lambda step: abs(step - share * steps))] for share in (0.25, 0.5)
    )
    return half < (1 - _FALLING) * quarter


def duplicates(kernels: Kernels, W_dec: Any) -> int:
    """Features whose decoder row is nearly another's: (d_sae, d_in) of any norms."""
    xp, rows = kernels.ops, kernels.unit_rows(kernels.array(W_dec))
    count = 0.0
    for at in range(0, rows.shape[0], _ROWS):
        cosines = rows[at : at + _ROWS] @ rows.T
        close = xp.as_float(cosines > DUPLICATE).sum(-1)
        count += float(xp.as_float(close > 1).sum())
    return int(count)

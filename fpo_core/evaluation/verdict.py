"""What the numbers of a run or an evaluation mean, in at most six lines."""

from dataclasses import dataclass

from fpo_core.evaluation.evaluate import Share
from fpo_core.loss.metrics import WEAK_CONSTRAINT

STRONG = 1.0
"""Constraint ratio above which the constraint outweighs the preference."""
WORSE_TEXT = 0.10
"""Relative rise of perplexity that counts as harm."""
FAR = 0.5
"""Sequential KL per chosen token, in nats, from which on a policy writes quite otherwise."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The numbers behind a verdict; None stands for what was not measured."""

    raw_before: float | None = None
    raw: Share
    reward: Share | None = None
    """Reward accuracy; None where there was no other model to compare with."""
    reward_chosen: float = 0.0
    reward_rejected: float = 0.0
    kl_chosen: float | None = None
    kl_rejected: float | None = None
    kl_per_token: float | None = None
    d_chosen: float | None = None
    d_rejected: float | None = None
    perplexity_before: float | None = None
    perplexity: float | None = None
    alpha: float = 0.0
    """Weight of the constraint in force."""
    constrained: str = "D"
    """What the constraint is on: D or KL."""
    constraint_ratio: float | None = None
    held_out: bool = True
    """Whether the pairs were kept out of training."""
    early_end: str | None = None
    """Where and why training ended before its last step."""

    @property
    def learned(self) -> bool:
        """Whether the whole interval of reward accuracy lies above chance."""
        return self.reward is not None and self.reward.low > 0.5

    @property
    def text_rise(self) -> float | None:
        """Relative change of perplexity."""
        if self.perplexity is None or self.perplexity_before is None:
            return None
        return self.perplexity / self.perplexity_before - 1

    @property
    def drifted_far(self) -> bool:
        """Whether texts got harder, or completions are written quite otherwise."""
        rise, per_token = self.text_rise, self.kl_per_token
        return (rise is not None and rise > WORSE_TEXT) or (
            per_token is not None and per_token > FAR
        )

    @property
    def both_fall(self) -> bool:
        """Whether chosen and rejected completions alike became less likely."""
        return self.reward_chosen < 0 and self.reward_rejected < 0


def verdict(found: Findings) -> list[str]:
    """At most six lines: learned, drifted, constraint, rewards, and what to change next."""
    if found.reward is None:
        where = "held-out" if found.held_out else "training"
        return [
            f"Preference: {where} raw accuracy {found.raw}; reward accuracy needs an adapter or "
            "--base to compare with.",
            *([] if found.perplexity is None else [f"Texts: perplexity {found.perplexity:.2f}."]),
        ]
    lines = [_learned(found), _drifted(found), _constraint(found), _rewards(found)]
    if found.early_end is not None:
        lines.append(f"Stopped early? yes, {found.early_end}.")
    return [*lines, f"Next: {_advice(found)}"]


def _learned(found: Findings) -> str:
    assert found.reward is not None
    word = "no, the wrong way" if found.reward.high < 0.5 else "unclear"
    if found.learned:
        word = "yes" if found.raw.low > 0.5 else "in part"
    before = "" if found.raw_before is None else f"{found.raw_before:.3f} → "
    where = "held-out pairs" if found.held_out else "training pairs: none were held out"
    return (
        f"Learned? {word}: raw accuracy {before}{found.raw}, "
        f"reward accuracy {found.reward} ({where})."
    )


def _drifted(found: Findings) -> str:
    parts = []
    if found.kl_chosen is not None and found.kl_rejected is not None:
        parts.append(f"KL {found.kl_chosen:.3g} chosen, {found.kl_rejected:.3g} rejected")
    if found.d_chosen is not None and found.d_rejected is not None:
        parts.append(f"D {found.d_chosen:.3g} chosen, {found.d_rejected:.3g} rejected")
    if found.text_rise is not None:
        before, after = found.perplexity_before, found.perplexity
        parts.append(f"perplexity {before:.4g} → {after:.4g} ({_change(found.text_rise)})")
    word = "far" if found.drifted_far else "within bounds" if parts else "not measured"
    return f"Drifted? {word}: {'; '.join(parts)}." if parts else f"Drifted? {word}."


def _change(rise: float) -> str:
    return f"{rise:+.1%}" if rise < 1 else f"{rise + 1:.3g} times"


def _constraint(found: Findings) -> str:
    if found.alpha == 0:
        return "Constraint active? none: alpha is 0, or nothing is there to constrain."
    if found.constraint_ratio is None:
        return "Constraint active? not measured."
    ratio = found.constraint_ratio
    word = (
        "hardly"
        if ratio < WEAK_CONSTRAINT
        else "yes, it outweighs the preference"
        if ratio > STRONG
        else ""
    )
    weight = f"α·{found.constrained}"
    return f"Constraint active? {word or 'yes'}: {weight} is {ratio:.2g} of the preference margin."


def _rewards(found: Findings) -> str:
    word = "yes" if found.both_fall else "no"
    return (
        f"Both rewards falling? {word}: chosen {found.reward_chosen:+.3g}, "
        f"rejected {found.reward_rejected:+.3g}."
    )


def _advice(found: Findings) -> str:
    """The first change that the numbers call for."""
    assert found.reward is not None
    ratio = found.constraint_ratio if found.alpha > 0 else None
    options = (
        (
            found.reward.high < 0.5,
            "look at the data with `fpo data inspect`: chosen and rejected may be swapped.",
        ),
        (
            not found.learned and ratio is not None and ratio > STRONG,
            "lower --alpha: the constraint leaves the preference no room.",
        ),
        (not found.learned, "train longer (--epochs), or raise --learning-rate."),
        (
            found.drifted_far,
            "lower --learning-rate or take fewer steps, or raise --alpha or --beta, to stay near.",
        ),
        (
            found.raw.low <= 0.5,
            "raw accuracy is still near chance: train longer, or raise --learning-rate.",
        ),
        (
            ratio is not None and ratio < WEAK_CONSTRAINT,
            "raise --alpha for the constraint to take part.",
        ),
        (
            found.both_fall,
            "mind that chosen completions lose likelihood too: fewer steps, or a higher --beta.",
        ),
        (
            not found.held_out,
            "hold pairs out (--valid-fraction 0.05) before trusting these numbers.",
        ),
        (
            True,
            "nothing stands out; `fpo compare` shows what the constraint does.",
        ),
    )
    return next(text for applies, text in options if applies)

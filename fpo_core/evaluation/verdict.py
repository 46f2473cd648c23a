"""What the numbers of a run or an evaluation mean, in at most six lines."""

import math
from dataclasses import dataclass

from fpo_core.evaluation.evaluate import Share
from fpo_core.loss.metrics import (
    ABOVE_FLOOR,
    WEAK_CONSTRAINT,
    WEAK_SHARE,
    WORSE_TEXT,
    is_below_floor,
)

STRONG = 1.0
"""Share of the gradient, or ratio of values, above which the constraint is the stronger."""
FAR = 0.5
"""Sequential KL per chosen token, in nats, above which a policy writes another text."""
KNOWS = 3
"""General questions that the start must answer right for lost ones to be counted."""
LOST = 1 / 3
"""Share of them whose loss breaks a model; one alone never does."""
REPEATS = 0.3
"""Rise of the repetition of greedy answers that breaks a model."""


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
    facts_before: int | None = None
    facts: int | None = None
    """General questions answered right."""
    questions: int | None = None
    repetition_before: float | None = None
    repetition: float | None = None
    """Share of repeated 4-grams in greedy answers."""
    alpha: float = 0.0
    """Weight of the constraint in force."""
    constrained: str = "D"
    """What the constraint is on: D or KL."""
    constraint_ratio: float | None = None
    """αβ·D beside the preference's margin; of use where there is no share."""
    constraint_share: float | None = None
    """The constraint's gradient beside the preference's; None where nothing was trained."""
    d_floor: float | None = None
    """D of the reference itself, which is rounding; None where it was not measured."""
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
    def facts_lost(self) -> int:
        """General questions less than at the start that are answered right.

        0 where the start answered too few: a base model, or one of another language, cannot.
        """
        if self.facts is None or self.facts_before is None or self.facts_before < KNOWS:
            return 0
        return max(0, self.facts_before - self.facts)

    @property
    def not_a_number(self) -> bool:
        """Whether something that was measured is no number: then no comparison tells anything."""
        values = (self.perplexity, self.kl_chosen, self.reward_chosen, self.reward_rejected)
        return any(value is not None and math.isnan(value) for value in values)

    @property
    def broken(self) -> bool:
        """Whether the model lost facts that it knew, repeats itself, or computes no numbers."""
        if self.not_a_number:
            return True
        if self.facts_lost > 1 and self.facts_lost >= LOST * (self.facts_before or 0):
            return True
        if self.repetition is None or self.repetition_before is None:
            return False
        return self.repetition - self.repetition_before > REPEATS

    @property
    def drifted_far(self) -> bool:
        """Whether texts got harder to predict; where none were read, whether KL is large.

        KL on chosen replies is what training is for, so that texts decide where there are any.
        """
        if self.text_rise is not None:
            return self.text_rise > WORSE_TEXT
        return self.kl_per_token is not None and self.kl_per_token > FAR

    @property
    def below_floor(self) -> bool:
        """Whether D is rounding, so that nothing can be said of the constraint."""
        return self.constrained == "D" and is_below_floor(self.d_rejected, self.d_floor)

    @property
    def weak(self) -> bool:
        """Whether the constraint was as good as absent."""
        if self.alpha == 0 or self.below_floor:
            return False
        if self.constraint_share is not None:
            return self.constraint_share < WEAK_SHARE
        return self.constraint_ratio is not None and self.constraint_ratio < WEAK_CONSTRAINT

    @property
    def strong(self) -> bool:
        """Whether it outweighed the preference."""
        measured = (self.constraint_share, self.constraint_ratio)
        weight = next((value for value in measured if value is not None), None)
        return self.alpha > 0 and not self.below_floor and weight is not None and weight > STRONG

    @property
    def both_fall(self) -> bool:
        """Whether chosen and rejected completions alike became less likely."""
        return self.reward_chosen < 0 and self.reward_rejected < 0


def verdict(findings: Findings) -> list[str]:
    """At most six lines: learned, drifted, constraint, rewards, and what to change next."""
    if findings.reward is None:
        return _standing(findings)
    lines = [_learned(findings), _drifted(findings), _constraint(findings), _rewards(findings)]
    if findings.early_end is not None:
        lines.append(f"Stopped early? yes, {findings.early_end}.")
    return [*lines, f"Next: {_advice(findings)}"]


def _standing(findings: Findings) -> list[str]:
    """Of a model by itself."""
    where = "held-out" if findings.held_out else "training"
    accuracy = f"Preference: {where} raw accuracy {findings.raw}"
    lines = [f"{accuracy}; reward accuracy needs an adapter or a base to compare with."]
    if findings.perplexity is not None:
        lines.append(f"Texts: perplexity {findings.perplexity:.2f}.")
    return lines


def _learned(findings: Findings) -> str:
    assert findings.reward is not None
    word = "no, the wrong way" if findings.reward.high < 0.5 else "unclear"
    if findings.learned:
        word = "yes" if findings.raw.low > 0.5 else "in part"
    before = "" if findings.raw_before is None else f"{findings.raw_before:.3f} → "
    where = "held-out pairs" if findings.held_out else "training pairs: none were held out"
    return (
        f"Learned? {word}: raw accuracy {before}{findings.raw}, "
        f"reward accuracy {findings.reward} ({where})."
    )


def _drifted(findings: Findings) -> str:
    parts = []
    if findings.kl_chosen is not None and findings.kl_rejected is not None:
        parts.append(f"KL {findings.kl_chosen:.3g} chosen, {findings.kl_rejected:.3g} rejected")
    if findings.d_chosen is not None and findings.d_rejected is not None:
        parts.append(f"D {findings.d_chosen:.3g} chosen, {findings.d_rejected:.3g} rejected")
    if findings.text_rise is not None:
        before, after = findings.perplexity_before, findings.perplexity
        parts.append(f"perplexity {before:.4g} → {after:.4g} ({_change(findings.text_rise)})")
    if findings.facts is not None and (findings.facts_before or 0) >= KNOWS:
        facts = f"{findings.facts_before} → {findings.facts} of {findings.questions}"
        parts.append(f"general questions right {facts}")
    if findings.repetition is not None and findings.repetition_before is not None:
        parts.append(f"repetition {findings.repetition_before:.2f} → {findings.repetition:.2f}")
    word = "far" if findings.drifted_far else "within bounds" if parts else "not measured"
    word = "broken" if findings.broken else word
    return f"Drifted? {word}: {'; '.join(parts)}." if parts else f"Drifted? {word}."


def _change(rise: float) -> str:
    return f"{rise:+.1%}" if rise < 1 else f"{rise + 1:.3g} times"


def _constraint(findings: Findings) -> str:
    if findings.alpha == 0:
        return "Constraint active? none: alpha is 0, or nothing is there to constrain."
    if findings.below_floor:
        return (
            f"Constraint active? not told: D {findings.d_rejected:.2g} of rejected replies is at "
            f"its floor, below {ABOVE_FLOOR:g} times the {findings.d_floor:.2g} of rounding alone."
        )
    word = "hardly" if findings.weak else "yes"
    word = "yes, it outweighs the preference" if findings.strong else word
    if findings.constraint_share is not None:
        share = f"{findings.constraint_share:.2g} of the preference's"
        return f"Constraint active? {word}: its gradient is {share}."
    if findings.constraint_ratio is None:
        return "Constraint active? not measured."
    ratio, weight = findings.constraint_ratio, f"α·{findings.constrained}"
    return f"Constraint active? {word}: {weight} is {ratio:.2g} of the preference margin."


def _rewards(findings: Findings) -> str:
    word = "yes" if findings.both_fall else "no"
    return (
        f"Both rewards falling? {word}: chosen {findings.reward_chosen:+.3g}, "
        f"rejected {findings.reward_rejected:+.3g}."
    )


def _advice(findings: Findings) -> str:
    """The first change that the numbers call for."""
    assert findings.reward is not None
    # By urgency: data, a broken model, too little learned, too much drift, what to mind.
    options = (
        (
            findings.not_a_number,
            "its log-probabilities are no numbers: lower learning_rate, or look at the adapter.",
        ),
        (
            findings.reward.high < 0.5,
            "look at the pairs: chosen and rejected may be swapped.",
        ),
        (
            findings.broken,
            "the model lost what it could say before: lower learning_rate or take fewer steps, "
            "and read its answers.",
        ),
        (
            not findings.learned and findings.strong,
            "lower alpha: the constraint leaves the preference no room.",
        ),
        (not findings.learned, "train longer (epochs), or raise learning_rate."),
        (
            findings.drifted_far,
            "lower learning_rate or take fewer steps, or raise alpha or beta, to stay near.",
        ),
        (
            findings.facts_lost > 0,
            "read the answers to general questions: fewer are right than before.",
        ),
        (
            findings.raw.low <= 0.5,
            "raw accuracy is still near chance: train longer, or raise learning_rate.",
        ),
        (
            findings.weak,
            "raise alpha for the constraint to take part.",
        ),
        (
            findings.both_fall,
            "mind that chosen completions lose likelihood too: fewer steps, or a higher beta.",
        ),
        (
            not findings.held_out,
            "hold pairs out (valid_fraction 0.05) before trusting these numbers.",
        ),
        (
            True,
            "nothing stands out; a comparison of objectives shows what the constraint does.",
        ),
    )
    return next(text for applies, text in options if applies)

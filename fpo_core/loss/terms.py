"""`Terms`, the parts of u that a link turns into a loss."""

from dataclasses import dataclass

from fpo_core.arrays.ops import Array


@dataclass(frozen=True)
class Terms:
    """The parts of u for b pairs, each (b,), with β already in them."""

    lpd: Array
    """The policy's margin, such as β(m_w − m_l)."""
    margin: Array
    """The reference's margin, such as β(r_w − r_l), or γ."""
    delta: Array
    """The constraint δ."""

    def logits(self) -> Array:
        """u = LPD − margin − δ."""
        return self.lpd - self.margin - self.delta

    def swapped(self) -> "Terms":
        """The terms of the same pairs, labelled the other way: u becomes −u."""
        return Terms(-self.lpd, -self.margin, -self.delta)

"""Every metric that is logged or shown: its name, its words, its format and which way is better.

A log calls metrics by `name`, with `eval_` in front on held-out pairs; tables, curves, progress
bars and model cards take label, format and unit from here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A row of the catalogue."""

    name: str
    """In logs and JSON, without `eval_`."""
    label: str
    """In words, for a table's row or the title of a curve."""
    short: str
    """For a table's head, or a progress bar."""
    format: str = ".3f"
    """Format specification of a value in `unit`."""
    direction: Literal["higher", "lower"] | None = None
    """Which values are better; None where neither is."""
    unit: str = ""
    per_unit: float = 1
    """What a logged value is divided by to be in `unit`."""

    def text(self, value: float) -> str:
        """A logged value as people are shown it, without its unit."""
        return f"{value / self.per_unit:{self.format}}"

    def improves(self, value: float, best: float) -> bool:
        """Whether a value is better than the best so far; never where neither direction is."""
        if self.direction is None:
            return False
        return value < best if self.direction == "lower" else value > best


def _sides(name: str, label: str, short: str, unit: str = "") -> Iterator[Metric]:
    """A quantity of completions: chosen, rejected, and rejected less chosen."""
    for side in ("chosen", "rejected"):
        yield Metric(f"{name}_{side}", f"{label}, {side}", f"{short} {side}", ".3g", None, unit)
    words = f"{label}, rejected − chosen"
    yield Metric(f"{name}_margin", words, f"{short} margin", ".3g", None, unit)


_ROWS = (
    Metric("loss", "loss", "loss", ".4f", "lower", "nats"),
    Metric("logps/chosen", "log-probability, chosen", "logp chosen", ".2f", None, "nats"),
    Metric("logps/rejected", "log-probability, rejected", "logp rejected", ".2f", None, "nats"),
    Metric("rewards/chosen", "reward, chosen", "reward chosen", ".3g", "higher"),
    Metric("rewards/rejected", "reward, rejected", "reward rejected", ".3g"),
    Metric("rewards/margins", "reward margin", "margin", ".3g", "higher"),
    Metric(
        "rewards/accuracies", "reward accuracy", "reward acc", ".3f", "higher", "share of pairs"
    ),
    Metric("reward_accuracy", "reward accuracy", "reward acc", ".3f", "higher", "share of pairs"),
    Metric("fpo/raw_accuracy", "raw accuracy", "raw acc", ".3f", "higher", "share of pairs"),
    Metric("raw_accuracy", "raw accuracy", "raw acc", ".3f", "higher", "share of pairs"),
    Metric("fpo/delta", "constraint δ", "δ", ".3g"),
    Metric("fpo/ref_margin", "margin of the reference", "ref margin", ".3g"),
    Metric("fpo/tau", "temperature τ*, median", "τ*", ".3g"),
    Metric("fpo/tau_at_min", "τ* at its least", "τ* least", ".3f", None, "share of pairs"),
    Metric("fpo/tau_at_max", "τ* at its greatest", "τ* greatest", ".3f", None, "share of pairs"),
    Metric("fpo/constraint_ratio", "constraint over preference", "constraint", ".2g"),
    Metric("fpo/constraint_share", "constraint's share of the gradient", "share", ".2g"),
    Metric("fpo/alpha", "alpha in force", "alpha", ".3g"),
    Metric("fpo/d_floor", "D of the reference itself", "D floor", ".2g"),
    *_sides("fpo/d", "D", "D"),
    *_sides("fpo/kl", "sequential KL", "KL", "nats"),
    Metric("fpo/union", "features compared", "|I_k|", ".1f"),
    Metric("fpo/outside_cap", "features outside the cap", "outside cap", ".2f", "lower"),
    Metric("fpo/degree", "loss of degrees", "degree loss", ".3f", "lower", "nats"),
    Metric("fpo/degree_hit", "degrees told right", "degree acc", ".3f", "higher", "share"),
    Metric("oracle", "oracle's score of samples", "oracle", ".3f", "higher"),
    Metric("judge_score", "judge's score of samples", "score", ".3f", "higher"),
    Metric("win_rate", "win rate against the start", "win rate", ".3f", "higher"),
    Metric("win_rate_controlled", "win rate at equal length", "WR-L", ".3f", "higher"),
    Metric("entropy", "entropy of samples", "entropy", ".3f", None, "nats"),
    Metric("distinct_1", "distinct-1 of samples", "distinct-1"),
    Metric("distinct_2", "distinct-2 of samples", "distinct-2"),
    Metric("sample_length", "length of samples", "length", ".1f", None, "tokens"),
    Metric("value_kl", "KL of samples from those without values", "value KL", ".3g", None, "nats"),
    Metric("chosen_tokens", "length of chosen completions", "chosen length", ".1f", None, "tokens"),
    Metric("perplexity", "perplexity of texts", "perplexity", ".3f", "lower"),
    Metric("facts", "general questions answered right", "facts", ".0f", "higher"),
    Metric("questions", "general questions", "questions", ".0f"),
    Metric("repetition", "repetition of greedy answers", "repetition", ".3f", "lower"),
    Metric("grad_norm", "gradient norm", "grad norm", ".3g"),
    Metric("learning_rate", "learning rate", "lr", ".2e"),
    Metric("epoch", "passes over the pairs", "epoch", ".2f"),
    Metric("num_tokens", "tokens seen", "tokens", ".0f", None, "tokens"),
    Metric("skipped", "steps skipped", "skipped", ".0f", "lower", "steps"),
    Metric("steps", "steps planned", "steps", ".0f", None, "steps"),
    Metric("tokens_per_second", "tokens per second", "tok/s", ".0f", "higher"),
    Metric("seconds_per_step", "seconds per step", "s/step", ".3f", "lower", "s"),
    Metric("peak_memory", "peak memory", "MiB", ".0f", "lower", "MiB", 2**20),
    Metric("active_memory", "memory in use", "MiB in use", ".0f", None, "MiB", 2**20),
    Metric("cache_memory", "memory kept for reuse", "MiB kept", ".0f", None, "MiB", 2**20),
)
METRICS = {row.name: row for row in _ROWS}
"""The catalogue by name."""


def metric(name: str) -> Metric:
    """The row of a metric, whether or not `name` has `eval_` in front; KeyError for no metric."""
    return METRICS[name.removeprefix("eval_")]

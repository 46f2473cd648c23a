"""The reference store: log-probabilities and features of the frozen model, per pair (§3)."""

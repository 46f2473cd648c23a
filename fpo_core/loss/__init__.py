"""From log-probabilities and features to a loss: scores, objectives, metrics."""

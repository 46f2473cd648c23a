"""A model split among processes: its weights, what is trained of them, and the optimizer."""

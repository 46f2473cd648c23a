"""Fast forms of layers on torch, each with its own gradient."""

"""Fast forms of layers on MLX, each with its own gradient."""

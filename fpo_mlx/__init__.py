"""FPO on MLX: what only MLX and mlx-lm can say."""

"""FPO on PyTorch: what only PyTorch, transformers and PEFT can say."""

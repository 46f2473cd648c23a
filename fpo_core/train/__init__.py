"""Phase 2: the training loop, the same for every framework."""

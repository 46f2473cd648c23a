"""Sparse autoencoders: the canonical file, where one reads a model, the feature discrepancy D."""

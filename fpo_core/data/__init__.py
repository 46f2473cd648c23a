"""Preference data: file -> Pair -> TokenisedPair -> Batch, the same on every backend.

Importing this package loads NumPy alone; datasets and transformers are imported where used.
"""

"""The Python API: workflows as functions."""

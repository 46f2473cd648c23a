"""Array operations that every backend provides, and the NumPy reference."""

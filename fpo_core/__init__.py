"""The mathematics, data, reference store and training loop of FPO, free of any framework.

Importing this package loads neither torch nor mlx.
"""

__version__ = "0.1.0"

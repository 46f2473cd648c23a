"""Logistic regression on soft labels, for judges fitted on labels and for win rates."""

import numpy as np

Array = np.ndarray


def fit_weighted(x: Array, y: Array, weights: Array, penalty: float) -> Array:
    """Coefficients of r regressions at once, by Newton's method: (r, p).

    x (n, p) predictors, y (n,) labels in [0, 1], weights (r, n) how often each row counts in each
    regression. Minimises Σ w·(−y log q − (1 − y) log(1 − q)) + penalty·‖c‖²/2, q = σ(x c).
    """
    c = np.zeros((len(weights), x.shape[1]))
    for _ in range(50):
        q = sigmoid(c @ x.T)
        gradient = (weights * (q - y)) @ x + penalty * c
        curvature = np.einsum("rn,np,nk->rpk", weights * q * (1 - q), x, x, optimize=True)
        curvature += penalty * np.eye(x.shape[1])
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        # Far from the solution Newton overshoots; these coefficients are of order 1.
        c -= np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-10:
            break
    return c


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^−x) without overflow."""
    return 0.5 * (1 + np.tanh(x / 2))

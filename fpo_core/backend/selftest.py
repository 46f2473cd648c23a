"""Golden values of the mathematics, replayed by a backend on its own device."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fpo_core.arrays import numpy_ops
from fpo_core.arrays.ops import Array, Ops
from fpo_core.config import ObjectiveConfig
from fpo_core.loss.dense import Outputs, ReferenceBatch, Targets, score
from fpo_core.loss.objectives import objective_losses
from fpo_core.loss.scores import Scores
from fpo_core.sae.sae import Sae

GOLDEN = Path(__file__).with_name("golden.json")
"""Inputs and, for each activation, the expected scores; made by tests/golden/make_core.py."""
VALUE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
DIFFERENTIATED = ("logits", "hidden")
_STEP = 1e-5

Arrays = Mapping[str, Array]
Function = Callable[[Ops, Arrays], dict[str, Array]]


class Calculator(Protocol):
    """A backend that evaluates and differentiates functions of named float32 arrays."""

    def evaluate(self, function: Function, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What the function returns, as NumPy arrays."""
        ...

    def gradients(
        self, function: Function, arrays: Mapping[str, np.ndarray], names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        """The gradient of the sum of `losses` with respect to the named arrays."""
        ...


@dataclass(frozen=True)
class Check:
    """One comparison."""

    name: str
    difference: float
    """Largest difference, relative to the largest expected value."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the difference is a number within the tolerance."""
        return self.difference <= self.tolerance


def check_mathematics(calculator: Calculator, golden: Path | None = None) -> list[Check]:
    """Replay every golden value, and one gradient against differences of the NumPy core."""
    content = json.loads((golden or GOLDEN).read_text(encoding="utf-8"))
    inputs: dict[str, np.ndarray] = {
        name: np.asarray(value, np.int64 if name == "labels" else np.float64)
        for name, value in content["inputs"].items()
    }
    checks: list[Check] = []
    for kind, expected in content["expected"].items():
        function = _function(kind, content)
        actual = calculator.evaluate(function, _single(inputs))
        checks += [
            _check(f"{kind} {name}", actual[name], np.asarray(value), VALUE_TOLERANCE)
            for name, value in expected.items()
        ]
    function = _function("relu", content)
    actual = calculator.gradients(function, _single(inputs), DIFFERENTIATED)
    for name in DIFFERENTIATED:
        expected = _differences(function, inputs, name)
        checks.append(_check(f"gradient of {name}", actual[name], expected, GRADIENT_TOLERANCE))
    return checks


def _function(kind: str, content: dict[str, Any]) -> Function:
    """Scores and losses as a function of the inputs."""
    objective = ObjectiveConfig(**content["settings"])

    def function(xp: Ops, arrays: Arrays) -> dict[str, Array]:
        sae = Sae(
            architecture=kind,
            d_in=arrays["W_enc"].shape[0],
            d_sae=arrays["W_enc"].shape[1],
            k=content["sae_k"] if kind == "topk" else None,
            W_enc=arrays["W_enc"],
            b_enc=arrays["b_enc"],
            threshold=arrays["threshold"] if kind == "jumprelu" else None,
        )
        scores = score(
            xp,
            Outputs(arrays["logits"], (arrays["hidden"],), arrays["reference_logits"]),
            Targets(arrays["labels"], arrays["mask"], arrays["feature_mask"]),
            saes=(sae,),
            reference=ReferenceBatch(
                arrays["reference_logps"],
                arrays["reference_pooled"],
                arrays["reference_logps"] * 0,
            ),
            objective=objective,
            entropy=True,
        )
        losses = objective_losses(xp, scores, arrays["reference_logps"], objective)
        return _fields(scores) | {"losses": losses}

    return function


def _fields(scores: Scores) -> dict[str, Array]:
    names = ("logps", "lengths", "kl", "entropy", "pooled", "d", "union")
    return {name: getattr(scores, name) for name in names}


def _single(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: value.astype(np.float32) if value.dtype == np.float64 else value
        for name, value in arrays.items()
    }


def _differences(function: Function, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Central differences of Σ losses in float64."""
    # The stop-gradient holds the chosen side's D: its rows of `hidden` have the gradient 0, which
    # a difference would not see.
    base = arrays[name]
    result = np.zeros_like(base)
    moved = base[base.shape[0] // 2 :] if name == "hidden" else base
    first = base.shape[0] - moved.shape[0]
    for offset in np.ndindex(*moved.shape):
        index = (offset[0] + first, *offset[1:])
        total = 0.0
        for sign in (1, -1):
            shifted = base.copy()
            shifted[index] += sign * _STEP
            losses = function(numpy_ops, arrays | {name: shifted})["losses"]
            total += sign * float(losses.sum())
        result[index] = total / (2 * _STEP)
    return result


def _check(name: str, actual: Any, expected: np.ndarray, tolerance: float) -> Check:
    actual = np.asarray(actual, np.float64)
    if actual.shape != expected.shape:
        return Check(f"{name}: shape {actual.shape}, expected {expected.shape}", np.inf, tolerance)
    scale = max(float(np.abs(expected).max()), 1e-12)
    difference = float(np.abs(actual - expected).max()) / scale
    return Check(name, difference if np.isfinite(difference) else np.inf, tolerance)

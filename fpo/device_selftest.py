"""The self-test: the mathematics and three training steps on the user's own device."""

import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import backend_module, build_policy, select_backend
from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo.world import assets
from fpo_convert.sae import convert_sae
from fpo_core.backend.policy import Policy
from fpo_core.backend.selftest import Check, check_mathematics
from fpo_core.config import (
    AdapterConfig,
    BackendConfig,
    DataConfig,
    DoctorConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
)
from fpo_core.data.batches import Batch, collate
from fpo_core.data.load import load_data
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.finite_difference import slope
from fpo_core.loss.metrics import preference_metrics
from fpo_core.sae.sae import load_sae
from fpo_core.sae.taps import Features

PAIRS, STEPS = 4, 3
OBJECTIVE = ObjectiveConfig(alpha=0.5, beta=2.0)
LEARNING_RATE = 2e-3
SPECIAL_TOKENS = tuple(range(7))
"""The world's special tokens, which its autoencoder was not trained on."""


@dataclass(frozen=True)
class SelfTest(Result):
    """What a backend computed, beside what it should."""

    backend: str
    device: str
    checks: list[Check]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every check did."""
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        """Checks that differ by more than their tolerance."""
        return [check for check in self.checks if not check.passed]

    def lines(self) -> list[str]:
        """The report for people, to be pasted into a bug report."""
        passed = len(self.checks) - len(self.failed)
        return [
            f"self-test of {self.backend} on {self.device}: {passed} of {len(self.checks)} "
            f"checks passed in {self.seconds:.1f} s",
            *(
                f"  FAILED {check.name}: {check.difference:.2e}, expected at most "
                f"{check.tolerance:.0e}"
                for check in self.failed
            ),
        ]

    def table(self) -> Table:
        """The report in sentences."""
        return Table((), (), self.lines())

    def to_mapping(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "device": self.device,
            "passed": self.passed,
            "checks": [asdict(check) | {"passed": check.passed} for check in self.checks],
            "seconds": self.seconds,
        }


@workflow(DoctorConfig)
def self_test(config: DoctorConfig) -> SelfTest:
    """Replay golden values, a gradient and three training steps on the device, in float32.

    `backend="auto"` tests the one that would be chosen. Look at `passed`: nothing is raised for a
    check that fails.
    """
    start = time.perf_counter()
    backend = select_backend(BackendConfig(backend=config.backend))
    computing = BackendConfig(backend=backend, device=config.device, dtype="float32")
    # MLX multiplies in TF32 on some GPUs unless told otherwise before it is imported.
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    calculator, device = backend_module(backend, "doctor").calculator(computing)
    checks = check_mathematics(calculator) + _training(backend, config.device)
    return SelfTest(backend, device, checks, time.perf_counter() - start)


def _training(backend: str, device: str) -> list[Check]:
    """Three steps on one batch of the quickstart's world: log 2, D = 0, and then downhill.

    Then the slope of a step without gradients.
    """
    with tempfile.TemporaryDirectory() as folder:
        sae_file = Path(folder) / "sae.safetensors"
        convert_sae(assets().sae, sae_file)
        sae = load_sae(sae_file)
        assert sae.hook is not None
        features = Features.of(sae, sae.hook, SPECIAL_TOKENS)
        data = DataConfig(data=str(assets().pairs), max_rows=PAIRS, cache=folder)
        batch = collate(load_data(data, load_tokenizer(str(assets().model))).train, range(PAIRS))
        model = ModelConfig(model=str(assets().model), device=device, dtype="float32")  # pyright: ignore
        policy = build_policy(backend, assets().model, model, AdapterConfig(), features)
    scores = policy.score(batch)
    truncated = np.zeros(2 * PAIRS, np.float32)
    reference = ReferenceBatch(scores.logps, scores.pooled, truncated)
    policy.prepare_training(OptimiserConfig())
    losses, drift = [], []
    for _ in range(STEPS + 1):
        scores = policy.accumulate(batch, reference, OBJECTIVE, 1 / PAIRS)
        metrics = preference_metrics(scores, np.asarray(reference.logps), OBJECTIVE)
        losses.append(metrics["loss"])
        drift.append(metrics["fpo/d_rejected"])
        policy.apply_gradients(LEARNING_RATE, 1.0)
    # A rise counts by its size; a loss that is not a number never passes.
    rises = np.maximum(np.diff(losses), 0.0)
    return [
        Check("training: loss at step 0 is log 2", abs(losses[0] - math.log(2)), 1e-4),
        Check("training: D at step 0 is 0", drift[0], 1e-6),
        Check("training: loss falls in three steps", float(rises.sum()), 0.0),
        Check("training: loss moved", 1e-4 / max(losses[0] - losses[-1], 1e-12), 1.0),
        *_zeroth_order(policy, batch, reference),
    ]


def _zeroth_order(policy: Policy, batch: Batch, reference: ReferenceBatch) -> list[Check]:
    """The slope that LOZO finds by scoring is the gradient's, and the weights come back.

    In float32 the slope is 1 to 5% off at any ε here; without its stop-gradient it is 25% off.
    """
    policy.prepare_training(OptimiserConfig())
    policy.accumulate(batch, reference, OBJECTIVE, 1 / PAIRS)
    policy.apply_gradients(0.0, 1e9)
    moments, before = policy.optimizer_state(), policy.trained()
    lozo = OptimiserConfig(optimizer="lozo", zo_epsilon=3e-4)
    epsilon = lozo.direction("zo_epsilon")
    policy.prepare_training(lozo)
    with policy.perturbed(1):
        moved, plus = policy.trained(), policy.score(batch, reference, OBJECTIVE)
    with policy.perturbed(-1):
        minus = policy.score(batch, reference, OBJECTIVE)
    # After one step Adam's m is a tenth of the gradient.
    along = sum(
        float((10 * moments[f"{name}.m"] * (moved[name] - weight)).sum()) / epsilon
        for name, weight in before.items()
    )
    by_losses = slope(plus, minus, np.asarray(reference.logps), OBJECTIVE, epsilon)
    left = max(float(np.abs(policy.trained()[name] - w).max()) for name, w in before.items())
    return [
        Check("zeroth order: slope by losses is the gradient's", abs(by_losses / along - 1), 0.1),
        Check("zeroth order: weights come back", left, 0.0),
    ]

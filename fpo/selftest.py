"""`fpo doctor --self-test`: the mathematics and three training steps on the user's own device."""

import importlib
import math
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import build_policy
from fpo.world import assets
from fpo_convert.sae import convert_sae
from fpo_core.backend.selftest import Calculator, Check, check_mathematics
from fpo_core.config import (
    AdapterConfig,
    BackendConfig,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
)
from fpo_core.data import load_data, load_tokenizer
from fpo_core.data.batches import collate
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.metrics import preference_metrics
from fpo_core.sae.sae import load_sae
from fpo_core.sae.taps import Features

PAIRS, STEPS = 4, 3
OBJECTIVE = ObjectiveConfig(alpha=0.5, beta=2.0)
LEARNING_RATE = 2e-3
SPECIAL_TOKENS = tuple(range(7))
"""The world's special tokens, which its autoencoder was not trained on."""


def self_test(backend: str, device: str) -> dict[str, Any]:
    """Run every check of one backend in float32; the mapping of its report."""
    start = time.perf_counter()
    config = BackendConfig(backend=backend, device=device, dtype="float32")  # pyright: ignore
    calculator, name = _calculator(backend, config)
    checks = check_mathematics(calculator) + _training(backend, device)
    return {
        "device": name,
        "passed": all(check.passed for check in checks),
        "checks": [asdict(check) | {"passed": check.passed} for check in checks],
        "seconds": time.perf_counter() - start,
    }


def _calculator(backend: str, config: BackendConfig) -> tuple[Calculator, str]:
    """What computes on the device, and the device's name."""
    if backend == "mlx":
        os.environ.setdefault("MLX_ENABLE_TF32", "0")
    select = importlib.import_module(f"fpo_{backend}.device").select_device
    module = importlib.import_module(f"fpo_{backend}.selftest_autodiff")
    device = select(config)
    if backend == "mlx":
        return module.MlxCalculator(), device
    return module.TorchCalculator(device), str(device)


def _training(backend: str, device: str) -> list[Check]:
    """Three steps on one batch of the quickstart's world: log 2, D = 0, and then downhill."""
    with tempfile.TemporaryDirectory() as folder:
        sae_file = Path(folder) / "sae.safetensors"
        convert_sae(assets().sae, sae_file)
        sae = load_sae(sae_file)
        data = DataConfig(data=str(assets().pairs), max_rows=PAIRS, cache=folder)
        batch = collate(load_data(data, load_tokenizer(str(assets().model))).train, range(PAIRS))
    model = ModelConfig(model=str(assets().model), device=device, dtype="float32")  # pyright: ignore
    assert sae.hook is not None
    features = Features.of(sae, sae.hook, SPECIAL_TOKENS)
    policy = build_policy(backend, assets().model, model, AdapterConfig(), features)
    scores = policy.score(batch)
    truncated = np.zeros(2 * PAIRS, np.float32)
    reference = ReferenceBatch(scores.logps, scores.pooled, truncated)
    policy.prepare_training(OptimiserConfig())
    losses, drift = [], []
    for _ in range(STEPS + 1):
        scores = policy.accumulate(batch, reference, OBJECTIVE, 1 / PAIRS)
        found = preference_metrics(scores, np.asarray(reference.logps), OBJECTIVE)
        losses.append(found["loss"])
        drift.append(found["fpo/d_rejected"])
        policy.apply_gradients(LEARNING_RATE, 1.0)
    # A rise counts by its size; a loss that is not a number never passes.
    rises = np.maximum(np.diff(losses), 0.0)
    return [
        Check("training: loss at step 0 is log 2", abs(losses[0] - math.log(2)), 1e-4),
        Check("training: D at step 0 is 0", drift[0], 1e-6),
        Check("training: loss falls in three steps", float(rises.sum()), 0.0),
        Check("training: loss moved", 1e-4 / max(losses[0] - losses[-1], 1e-12), 1.0),
    ]


def report_lines(name: str, report: dict[str, Any]) -> list[str]:
    """A backend's report for people, to be pasted into a bug report."""
    checks = report["checks"]
    failed = [check for check in checks if not check["passed"]]
    head = (
        f"self-test of {name} on {report['device']}: {len(checks) - len(failed)} of {len(checks)} "
        f"checks passed in {report['seconds']:.1f} s"
    )
    return [
        head,
        *(
            f"  FAILED {check['name']}: {check['difference']:.2e}, expected at most "
            f"{check['tolerance']:.0e}"
            for check in failed
        ),
    ]

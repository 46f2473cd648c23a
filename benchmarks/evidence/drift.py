"""How far the checkpoints of a finished run drifted: accuracy, KL, and D by three measures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.evidence.measures import NAMES, drifts, with_controls
from fpo.backends import build_policy
from fpo.model_setup import ModelSetup
from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.data.batches import collate
from fpo_core.data.batching import scoring_batches
from fpo_core.io.atomic import remove_folder, write_atomically
from fpo_core.loss.scores import Scores, chosen, join, rejected
from fpo_core.sae.taps import Features
from fpo_core.train.checkpoints import TRAINED_FILE, Checkpoints
from fpo_core.train.paired_data import spread
from fpo_core.train.run_folder import checkpoints_in

FILE = "drift.npz"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on b held-out pairs; arrays are (2b,), chosen then rejected."""

    step: int
    logps: np.ndarray
    """Mean log-probability of a token."""
    kl: np.ndarray
    d: dict[str, np.ndarray]
    """By each of `measures.NAMES`."""

    @property
    def raw_accuracy(self) -> float:
        """Share of pairs whose chosen completion has the higher mean log-probability."""
        return float((chosen(self.logps) > rejected(self.logps)).mean())


class Observer:
    """Scores checkpoints of runs that share model, pairs and autoencoder."""

    def __init__(self, config: TrainConfig, pairs: int) -> None:
        setup = ModelSetup(config)
        assert setup.features is not None, "drift is measured with an autoencoder"
        data = setup.load_data(config)
        split = data.train if data.valid is None else data.valid
        rows = spread(len(split), pairs)
        plan = scoring_batches(split.lengths()[rows], config.tokens_per_batch)
        self._batches = [collate(split, rows[places]) for places in plan]
        self._config, self._features = config, with_controls(setup.features)
        self._policy = _policy(setup, config, self._features)
        start = self._policy.trained()
        self._policy.set_reference(start)
        self._start = self._scores(kl=False)

    def observe(self, run: Path) -> list[Checkpoint]:
        """Every checkpoint, in order; saved in the run, whose checkpoints but the last then go."""
        path = run / FILE
        if not path.is_file():
            checkpoints = checkpoints_in(run)
            observed = [self._observe(checkpoints, step) for step in checkpoints.steps()]
            write_atomically(path, lambda at: _save(at, observed))
            for step in checkpoints.steps()[:-1]:
                remove_folder(_folder(checkpoints, step))
        return read(run)

    def _observe(self, checkpoints: Checkpoints, step: int) -> Checkpoint:
        self._policy.load_trained(load_file(_folder(checkpoints, step) / TRAINED_FILE))
        scores = self._scores(kl=True)
        assert scores.kl is not None, "KL was asked for"
        k, normalize = self._config.k, self._config.normalize_d
        d = drifts(scores.pooled, self._start.pooled, self._features, k, normalize=normalize)
        return Checkpoint(step, scores.mean_logps, scores.kl, d)

    def _scores(self, *, kl: bool) -> Scores:
        return join([self._policy.score(batch, kl=kl) for batch in self._batches])


def _policy(setup: ModelSetup, config: TrainConfig, features: Features) -> Policy:
    adapter = setup.adapter_config(config)
    place = setup.model.path
    return build_policy(setup.backend, place, config, adapter, features, step=setup.step)


def _folder(checkpoints: Checkpoints, step: int) -> Path:
    return checkpoints.folder / f"step-{step:08d}"


def _save(path: Path, checkpoints: list[Checkpoint]) -> None:
    arrays: dict[str, Any] = {
        key: [getattr(checkpoint, key) for checkpoint in checkpoints]
        for key in ("step", "logps", "kl")
    }
    arrays |= {f"d_{name}": [checkpoint.d[name] for checkpoint in checkpoints] for name in NAMES}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read(run: Path) -> list[Checkpoint]:
    """What `Observer.observe` saved of a run."""
    with np.load(run / FILE) as file:
        arrays = dict(file)
    return [
        Checkpoint(
            int(arrays["step"][i]),
            arrays["logps"][i],
            arrays["kl"][i],
            {name: arrays[f"d_{name}"][i] for name in NAMES},
        )
        for i in range(len(arrays["step"]))
    ]

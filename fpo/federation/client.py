"""A client of a federation: local steps on its own pairs, without Flower."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import build_reader
from fpo.federation.proximal import Proximal
from fpo.model_setup import splits_of
from fpo.run_checks import ValidatedRun, check_run
from fpo_core.adapters.folders import save_trained
from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.data.batches import collate
from fpo_core.errors import TrainingError
from fpo_core.evaluation.evaluate import evaluate
from fpo_core.events import Sink
from fpo_core.federated.layers import layer_score
from fpo_core.federated.weight_files import Weights, read_weights, write_weights
from fpo_core.io.atomic import write_folder
from fpo_core.sae.hook import Hook
from fpo_core.train.optimizer_step import Stepper
from fpo_core.train.paired_data import RunData, spread
from fpo_core.train.schedule import RowPlan
from fpo_core.train.step0 import check_step0

_LOCAL = "local-{}.safetensors"
_SCORED = 8
"""Pairs of the batch that layer scores are taken on."""


@dataclass(frozen=True)
class LocalResult:
    """What a client made of a round."""

    weights: Weights
    """Those that are exchanged."""
    pairs: int
    """Pairs that it holds for training."""
    steps: int
    loss: float
    """Mean over the round's steps."""


class Client:
    """Trains one policy on the pairs of its settings, some steps a round.

    Its steps are those of `fpo.train` under the same settings, of which round r takes the next
    `local_iters`; the optimizer begins anew in each. Weights that are not exchanged stay in files
    of its `output`, of the last round and of the one before: a round that the server did not close
    is taken again.
    """

    def __init__(self, run: ValidatedRun, policy: Policy, start: Weights, sink: Sink) -> None:
        """`policy` holds what the run trains, and starts from `start`; clients may share it."""
        self.run, self.policy, self.start, self._sink = run, policy, start, sink

    @classmethod
    def of(cls, config: TrainConfig, sink: Sink) -> "Client":
        """A client with a model of its own."""
        run = check_run(config, sink)
        policy = run.setup.policy(run.config, grad_checkpoint=run.config.grad_checkpoint)
        return cls(run, policy, policy.trained(), sink)

    @property
    def folder(self) -> Path:
        """Where it leaves its adapter and its own weights."""
        return Path(self.run.config.output)

    @property
    def name(self) -> str:
        """What it is called by."""
        return self.folder.resolve().name

    @property
    def pairs(self) -> int:
        """Pairs that it holds for training."""
        return len(self.run.data.train)

    @cached_property
    def data(self) -> RunData:
        """Its pairs with their stored reference, computed where it is not stored yet."""
        run = self.run
        self.policy.load_trained(self.start)
        store = run.setup.reference(
            run.store, splits_of(run.data), self.policy, run.config, self._sink
        )
        return RunData.of(run.data, store, run.setup.features, run.setup.group)

    def train(
        self, sent: Mapping[str, np.ndarray], number: int, local_iters: int, *, mu: float = 0.0
    ) -> LocalResult:
        """The local steps of round `number` (from 1), from what the server sent.

        Raises TrainingError where the weights do not fit, or no step could be applied.
        """
        config, data = self.run.config, self.data
        begun = max((n for n in self._kept() if n < number), default=0)
        weights = self._weights(sent, begun)
        self.policy.load_trained(self.start)
        if number == 1:
            check_step0(self.policy, data, config, self._sink)
        self.policy.load_trained(weights)
        self.policy.prepare_training(config)
        policy: Any = Proximal(self.policy, mu) if mu else self.policy
        stepper = Stepper(policy, data, config, RowPlan.of(data.train, config))
        first = (number - 1) * local_iters + 1
        results = [stepper.take(step) for step in range(first, first + local_iters)]
        applied = [result.metrics["loss"] for result in results if result.applied]
        if not applied:
            raise TrainingError(
                f"no step of round {number} had a finite loss and gradient: lower learning_rate"
            )
        trained = self.policy.trained()
        own = {n: w for n, w in trained.items() if n not in sent}
        write_weights(self.folder / _LOCAL.format(number), own)
        for other in self._kept() - {begun, number}:
            (self.folder / _LOCAL.format(other)).unlink()
        returned = {name: trained[name] for name in sent}
        return LocalResult(returned, len(data.train), len(applied), float(np.mean(applied)))

    def evaluate(self, sent: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Accuracies of the weights that the server sent, beside its own others.

        On its held-out pairs; where it holds none out, on those that it trains on.
        """
        config, data = self.run.config, self.data
        split = data.train if data.valid is None else data.valid
        self.policy.load_trained(self._weights(sent, max(self._kept(), default=0)))
        result = evaluate(
            self.policy,
            data,
            split,
            config,
            pairs=config.val_pairs,
            tokens_per_batch=config.tokens_per_batch,
            kl=False,
        )
        self.save()
        accuracy, loss = result.raw_accuracy.value, result.metrics["loss"]
        return {
            "accuracy": accuracy,
            "reward_accuracy": result.reward_accuracy.value,
            "loss": loss,
            "pairs": float(result.pairs),
            "held_out": float(data.valid is not None),
        }

    def save(self) -> None:
        """Write the weights in use as an adapter, `adapter` in its folder."""
        config, model = self.run.config, self.run.setup.model
        weights = self.policy.trained()
        write_folder(
            self.folder / "adapter",
            lambda folder: save_trained(folder, weights, config, config.model, model),
        )

    def layer_scores(self) -> list[float]:
        """FedPepTAO's score of every block, on one batch of its pairs under the bare model."""
        config, setup, train = self.run.config, self.run.setup, self.run.data.train
        hooks = [Hook(layer, "resid_post") for layer in range(setup.model.layers)]
        reader = build_reader(setup.backend, setup.model.path, setup.computing, hooks)
        batch = collate(train, spread(len(train), min(_SCORED, config.batch_size)))
        real = np.arange(batch.width) < batch.lengths[: batch.pairs, None]
        tokens = batch.tokens[: batch.pairs]
        states = (reader.numpy(array) for array in reader.read(tokens))
        # Padding is no part of a sample; the released code leaves it in.
        return [layer_score((x * real[..., None]).reshape(len(x), -1)) for x in states]

    def _kept(self) -> set[int]:
        """The rounds of which it has its own weights."""
        names = (path.stem.rpartition("-")[2] for path in self.folder.glob(_LOCAL.format("*")))
        return {int(number) for number in names if number.isdecimal()}

    def _weights(self, sent: Mapping[str, np.ndarray], number: int) -> Weights:
        """All weights for a pass: those sent over its own of a round, or over the start."""
        path = self.folder / _LOCAL.format(number)
        own = read_weights(path, "remove it") if path.is_file() else {}
        return self.start | own | {n: np.asarray(w, np.float32) for n, w in sent.items()}

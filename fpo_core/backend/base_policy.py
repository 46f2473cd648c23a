"""What the policies of both frameworks share: scoring, the step, the reference, the fallback.

A backend subclasses `BasePolicy` and says what only it can: how its model is loaded, run and
differentiated. The calls of a step, the backend's methods marked with *:

    accumulate → _differentiate* → loss → _scores → BasePackedStep.score    a row without padding
                                                  → _forward → _predict*    plain, padded
"""

import contextlib
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from fpo_core.adapters.virtual_tokens import prepended, virtual_ids
from fpo_core.arrays.ops import Array, Ops
from fpo_core.backend.base_packed_step import BasePackedStep
from fpo_core.backend.draws import uniforms
from fpo_core.backend.guidance import Value
from fpo_core.backend.parts import Canonical, Devices, Optimizer, Setup
from fpo_core.backend.policy import OnTokens, PolicyInfo, Sampling, SeededBatch
from fpo_core.backend.process_group import ALONE, Group
from fpo_core.backend.rooms import generate_by_room
from fpo_core.backend.zeroth_order import ZerothOrder
from fpo_core.config import AdapterConfig, ModelConfig, ObjectiveConfig, OptimiserConfig, StepConfig
from fpo_core.data.batches import Batch, Degraded
from fpo_core.io.shards import Shard
from fpo_core.loss.degrees import DEGREE_HEAD, with_degrees
from fpo_core.loss.dense import ReferenceBatch, score_batch
from fpo_core.loss.logps import token_logps
from fpo_core.loss.objectives import Part, isolated, objective_losses
from fpo_core.loss.online import OnlineTerms
from fpo_core.loss.packed import why_plain
from fpo_core.loss.packing import Scored
from fpo_core.loss.scores import Scores
from fpo_core.loss.token_scores import TokenScores, scored_in_rectangle, tokens_with_features
from fpo_core.loss.values import VALUE_HEAD, ValueScores, value_errors
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_core.sae.discrepancy import pool
from fpo_core.sae.taps import Features, capture_all

ScoresT = TypeVar("ScoresT", Scores, TokenScores, ValueScores)
ResultT = TypeVar("ResultT")
Loss = Callable[[], tuple[Array, ScoresT]]
"""Computes the weighted loss of a batch, (), and the scores that it rests on."""


class BasePolicy(ABC):
    """`fpo_core.backend.policy.Policy`, less what only a framework can say."""

    ops: ClassVar[Ops]
    devices: ClassVar[Devices]
    info: PolicyInfo
    model: Any
    """The framework's module, with adapters."""
    _taps: list[Any]
    _features: Features | None
    """The autoencoders, their encoders as arrays of the framework."""
    _trainable: Any
    """The trained weights, a `fpo_core.backend.parts.Trainable`."""

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        adapter: AdapterConfig,
        features: Features | None = None,
        *,
        grad_checkpoint: bool = False,
        step: StepConfig | None = None,
        zeroth_order: bool = False,
        degree_levels: int = 0,
        value_head: bool = False,
        shard: Group | None = None,
        cpu_offload: bool = False,
    ) -> None:
        """Open the model in a local folder, with what `adapter` trains and `features` read.

        For `zeroth_order` steps the model's own weights keep the precision of the compute. With
        `degree_levels`, a head that tells so many degrees apart is trained too; with `value_head`,
        one that says what reward a text will end with.
        `shard` splits the model among the processes of a group.

        Raises BackendError where the settings ask for what the backend or the machine lacks,
        ModelError or SaeError where they do not fit the model.
        """
        step = step or StepConfig()
        heads = (degree_levels, value_head)
        kind = (adapter, features, grad_checkpoint, step, zeroth_order)
        setup = Setup(folder, model, *kind, *heads, shard, cpu_offload)
        self._seed = model.seed
        self.device = self.devices.select_device(model)
        self.devices.configure(self, self.device, setup.step)
        self.devices.reset_peak_memory(self.device)
        self.dtype = self.devices.select_dtype(model, self.device)
        self._packed: BasePackedStep | None = None
        self._virtual = adapter.virtual
        self._reference: Any = None
        self._optimizer: Any = None
        self._gradient_norm: float | None = None
        steps = self._build(setup)
        bounds = Bounds.of(ModelFolder(folder, str(folder)), model)
        self._bounds = bounds.less(adapter.virtual_tokens if adapter.virtual else 0)
        self._choose_step(steps)

    @abstractmethod
    def _build(self, setup: Setup) -> Iterable[BasePackedStep]:
        """Load the model and set the attributes declared above; return the packed steps to try,
        none where the plain path was asked for.
        """

    @abstractmethod
    def _predict(self, batch: Batch, start: int) -> Array:
        """Logits (n, width − start, v) of the tokens from column `start` on, by a padded pass.

        Padding is on the right of a causal model, so it needs no attention mask.
        """

    @abstractmethod
    def _final_states(self, batch: Batch) -> Array:
        """States (n, width, d) behind the final norm, which the head reads, by a padded pass."""

    @abstractmethod
    def _differentiate(self, loss: Loss[ScoresT]) -> ScoresT:
        """Evaluate the loss once, add its gradient to the accumulated one, return its scores.

        Without waiting for the device; the scores have no gradient.
        """

    @abstractmethod
    def _inference(self) -> AbstractContextManager[Any]:
        """Within, the model runs without gradient, in the precision of its compute."""

    @abstractmethod
    def _set_training(self, on: bool) -> None:
        """Switch the dropout of adapters."""

    @abstractmethod
    def _to_numpy(self, scores: ScoresT) -> ScoresT:
        """The same scores in float32 on the host."""

    @abstractmethod
    def _on_host(self, array: Array) -> np.ndarray:
        """A float32 copy of an array on the host."""

    @abstractmethod
    def _make_optimizer(self, config: OptimiserConfig, group: Group) -> Optimizer:
        """The framework's optimizer over the trained weights."""

    @abstractmethod
    def _logits(self, tokens: np.ndarray) -> np.ndarray:
        """(n, t) -> (n, t, v), within `_inference`."""

    @abstractmethod
    def _unembed(self, states: np.ndarray) -> Array:
        """States (n, d) through the final norm and the output layer -> (n, v)."""

    @abstractmethod
    def _generate(
        self,
        prompts: list[np.ndarray],
        sampling: Sampling,
        draws: np.ndarray,
        on_tokens: OnTokens | None,
    ) -> list[np.ndarray]:
        """A completion of each prompt by `pick` at `draws` (n, t), within `_inference`."""

    def _describe(self, backend: str, **facts: Any) -> PolicyInfo:
        names = {"device": str(self.device), "dtype": str(self.dtype).rpartition(".")[2]}
        count = sum(map(math.prod, self._trainable.shapes().values()))
        frozen = self._trainable.frozen
        return PolicyInfo(
            backend=backend,
            trained_parameters=count,
            frozen=frozen,
            virtual=self._virtual,
            **names,
            **facts,
        )

    def _choose_step(self, steps: Iterable[BasePackedStep]) -> None:
        """Use the first packed step that scores as the plain path does; else note why none does."""
        # The model's own code decides how masks, positions and heads are handed on, which a new
        # family may do in a way that packing breaks: so each is tried on two pairs first.
        reason = None
        for step in steps:
            plain, packed = self._scorer(None), self._scorer(step)
            reason = why_plain(plain, packed, step.vocab, self.info.dtype)
            if reason is None:
                return
        self._packed = None
        self.info = dataclasses.replace(self.info, fallback=reason)

    def _scorer(self, step: BasePackedStep | None) -> Callable[[Batch], Scores]:
        def score(batch: Batch) -> Scores:
            self._packed = step
            if step is not None:
                step.virtual = self._virtual_ids
            return self.score(batch)

        return score

    def score(
        self,
        batch: Batch,
        reference: ReferenceBatch | None = None,
        objective: ObjectiveConfig | None = None,
        *,
        kl: bool = False,
        entropy: bool = False,
        features: bool = True,
        at_reference: bool = False,
    ) -> Scores:
        """See `fpo_core.backend.policy.Policy`."""
        batch = self._bounds.check_batch(batch)
        asked = {"kl": kl, "entropy": entropy, "features": features}
        weights = self._at_reference() if at_reference else contextlib.nullcontext()
        with self._inference(), self._stepping(), weights:
            scores = self._within_model(lambda: self._scores(batch, reference, objective, **asked))
            return self._to_numpy(scores)

    def token_scores(
        self,
        batch: Batch,
        columns: np.ndarray | None = None,
        *,
        features: bool = True,
        reference: bool = False,
    ) -> TokenScores:
        """See `fpo_core.backend.policy.Policy`."""
        batch = self._bounds.check_batch(batch)
        with self._inference(), self._stepping(), contextlib.ExitStack() as stack:
            if reference:
                stack.enter_context(self._at_reference())
            packed = self._packed
            tokens = self._tokens_of if packed is None else packed.tokens
            scored, logps, hidden = self._within_model(lambda: tokens(batch))
            saes = self._features.saes if features and self._features is not None else ()
            read = list(zip(saes, hidden, strict=True)) if saes else []
            return self._to_numpy(tokens_with_features(self.ops, scored, logps, read, columns))

    def _tokens_of(self, batch: Batch) -> tuple[Scored, Array, list[Array]]:
        """As `BasePackedStep.tokens`, by a padded pass."""
        untrained = () if self._features is None else self._features.untrained
        scored = scored_in_rectangle(batch, untrained)
        start = max(int(batch.prompt_lengths.min()), 1)
        logits, hidden = self._forward(batch, start)
        logps = token_logps(
            self.ops, logits, self.ops.asarray(batch.tokens[:, start:].astype(np.int64), logits)
        )
        row, column = np.divmod(scored.places, batch.width)
        places = self.ops.asarray(row * (batch.width - start) + column - start, logits)
        return (
            scored,
            logps.reshape(-1)[places],
            [h.reshape(-1, h.shape[-1])[places] for h in hidden],
        )

    def unembed(self, states: np.ndarray) -> np.ndarray:
        """See `fpo_core.backend.policy.Policy`."""
        with self._inference():
            # Of a norm with a bias, what it makes of nothing is no part of a direction.
            with_zero = np.concatenate([states, np.zeros_like(states[:1])])
            logits = self._within_model(lambda: self._unembed(with_zero))
            scores = self._to_numpy(TokenScores(logits))
        return scores.logps[:-1] - scores.logps[-1]

    def accumulate(
        self,
        batch: Batch,
        reference: ReferenceBatch,
        objective: ObjectiveConfig,
        weight: float,
        part: Part | None = None,
        online: OnlineTerms | None = None,
    ) -> Scores:
        """See `fpo_core.backend.policy.Policy`."""
        return self._to_numpy(self._accumulate(batch, reference, objective, weight, part, online))

    def accumulate_all(
        self, batches: Iterable[SeededBatch], objective: ObjectiveConfig, weight: float
    ) -> list[Scores]:
        """See `fpo_core.backend.policy.Policy`."""
        unread: list[dict[str, Array]] = []
        for seed, batch, reference, online, counts in batches:
            self.seed(seed)
            share = weight if counts else 0.0
            scores = self._accumulate(batch, reference, objective, share, online=online)
            fields = vars(scores.without_pooled())
            if counts:
                unread.append({name: x for name, x in fields.items() if x is not None})
        arrays = [array for fields in unread for array in fields.values()]
        *values, norm = self._read([*arrays, self._prepared().norm()])
        self._gradient_norm = float(norm)
        columns = iter(values)
        return [Scores(**dict(zip(fields, columns, strict=False))) for fields in unread]

    def _read(self, arrays: list[Array]) -> list[np.ndarray]:
        """The arrays in float32 on the host, which waits for the device once."""
        flat = self._on_host(
            self.ops.concatenate([self.ops.as_float(array).reshape(-1) for array in arrays], 0)
        )
        shapes = [tuple(array.shape) for array in arrays]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = zip(np.split(flat, ends[:-1]), shapes, strict=True)
        return [part.reshape(shape) for part, shape in parts]

    def _accumulate(
        self,
        batch: Batch,
        reference: ReferenceBatch,
        objective: ObjectiveConfig,
        weight: float,
        part: Part | None = None,
        online: OnlineTerms | None = None,
    ) -> Scores:
        """As `accumulate`; the scores stay arrays of the framework, without gradient."""
        batch = self._bounds.check_batch(batch)

        def loss() -> tuple[Array, Scores]:
            features = objective.needs_features  # a step computes what its loss reads
            scores = self._scores(
                batch, reference, objective, features=features, differentiate=True
            )
            logps = self.ops.asarray(reference.logps, scores.logps)
            differentiated = isolated(self.ops, scores, part)
            terms = online and online.astype(self.ops, scores.logps)
            losses = objective_losses(self.ops, differentiated, logps, objective, terms)
            return losses.sum() * weight, scores

        with self._training(), self._stepping():
            return self._differentiate(loss)

    @contextlib.contextmanager
    def _training(self) -> Iterator[None]:
        """Within, adapters drop out."""
        self._set_training(True)
        try:
            yield
        finally:
            self._set_training(False)

    def _within_model(self, call: Callable[[], ResultT]) -> ResultT:
        """The result of `call`, which runs the model or parts of it: where all weights are there.

        A backend that shards a model gathers them as they are needed.
        """
        return call()

    def _stepping(self) -> AbstractContextManager[None]:
        """Scoring, and backward after it, must lie within."""
        return contextlib.nullcontext() if self._packed is None else self._packed.on()

    def _scores(
        self,
        batch: Batch,
        reference: ReferenceBatch | None,
        objective: ObjectiveConfig | None,
        *,
        kl: bool = False,
        entropy: bool = False,
        features: bool = True,
        differentiate: bool = False,
    ) -> Scores:
        """Scores of a batch as arrays of the framework, by the packed step where there is one."""
        kl = kl or (objective is not None and objective.needs_kl)
        if self._packed is not None:
            scores = self._packed.score(
                batch,
                reference,
                objective,
                at_reference=self._at_reference() if kl else None,
                entropy=entropy,
                features=features,
                differentiate=differentiate,
            )
        else:
            scores = score_batch(
                self.ops,
                self._forward,
                batch,
                self._features if features else None,
                reference=reference,
                objective=objective,
                reference_forward=self._reference_forward if kl else None,
                entropy=entropy,
            )
        return scores if batch.degraded is None else self._with_degrees(scores, batch.degraded)

    def _with_degrees(self, scores: Scores, degraded: Degraded) -> Scores:
        """Scores with what the degree head says of the variants, by a second pass over them."""
        batch = self._bounds.check_batch(degraded.batch)
        if self._packed is not None:
            means = self._packed.mean_states(batch)
        else:
            ids = self._virtual_ids()
            states = self.ops.as_float(self._final_states(prepended(batch, ids)))[:, len(ids) :]
            means = pool(self.ops, states, self.ops.asarray(batch.completion_mask(), states))
        return with_degrees(
            self.ops, scores, means, self._trainable.head(DEGREE_HEAD), degraded.levels
        )

    @contextlib.contextmanager
    def _at_reference(self) -> Iterator[None]:
        """Within, the model is the reference, without gradient or dropout."""
        if self._reference is None:
            raise RuntimeError("KL needs set_reference first")
        training = self.model.training
        self._set_training(False)
        try:
            with self._inference(), self._trainable.swapped(self._reference):
                yield
        finally:
            self._set_training(training)

    def _reference_forward(self, batch: Batch, start: int) -> tuple[Array, tuple[()]]:
        with self._at_reference():
            ids = self._virtual_ids()
            return self._predict(prepended(batch, ids), start + len(ids)), ()

    def _forward(self, batch: Batch, start: int) -> tuple[Array, tuple[Array, ...]]:
        """Predictions of, and activations on, the tokens from column `start` on."""
        ids = self._virtual_ids()
        batch, start = prepended(batch, ids), start + len(ids)
        logits, hidden = capture_all(self._taps, lambda: self._predict(batch, start))
        return logits, tuple(h[:, start:] for h in hidden)

    def _virtual_ids(self) -> np.ndarray:
        """The ids (n,) that every sequence begins with under the weights in use."""
        return virtual_ids(self._trainable.shapes().items() if self._virtual else ())

    def prepare_training(self, config: OptimiserConfig, group: Group = ALONE) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        if config.zeroth_order:
            float32 = self.info.dtype == "float32"
            self._optimizer = ZerothOrder(self._trainable, config, self._seed, float32=float32)
        else:
            self._optimizer = self._make_optimizer(config, group)

    def perturbed(self, sign: float, *, stay: bool = False) -> AbstractContextManager[None]:
        """See `fpo_core.backend.policy.Policy`."""
        return self._prepared().perturbed(sign, stay=stay)

    def apply_slope(self, slope: float, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.backend.policy.Policy`."""
        return self._prepared().step(slope, learning_rate, max_norm)

    def apply_gradients(self, learning_rate: float, max_norm: float) -> float:
        """See `fpo_core.backend.policy.Policy`."""
        optimizer = self._prepared()
        norm = self._read_norm() if self._gradient_norm is None else self._gradient_norm
        optimizer.step(learning_rate, max_norm, norm)
        self._gradient_norm = None
        return norm

    def gradient_norm(self) -> float:
        """See `fpo_core.backend.policy.Policy`."""
        norm = self._read_norm()
        self.drop_gradients()
        return norm

    def _read_norm(self) -> float:
        return float(self._read([self._prepared().norm()])[0])

    def drop_gradients(self) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._gradient_norm = None
        self._prepared().drop_gradients()

    def optimizer_state(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy`."""
        return self._prepared().state()

    def load_optimizer_state(self, state: Canonical) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._prepared().load_state(state)

    def _prepared(self) -> Any:
        if self._optimizer is None:
            raise RuntimeError("call prepare_training first")
        return self._optimizer

    def trained(self) -> dict[str, np.ndarray]:
        """See `fpo_core.backend.policy.Policy`."""
        return self._trainable.canonical()

    def model_shards(self) -> dict[str, Shard]:
        """See `fpo_core.backend.policy.Policy`."""
        raise RuntimeError("this process holds the whole model")

    def load_trained(self, weights: Canonical) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._trainable.load(weights)

    def set_reference(self, weights: Canonical | None) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self._reference = None if weights is None else self._trainable.from_canonical(weights)

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """See `fpo_core.backend.policy.Policy`."""
        self._bounds.check_tokens(tokens)
        ids = self._virtual_ids()
        rows = np.broadcast_to(ids, (len(tokens), len(ids)))
        with self._inference():
            sequences = np.concatenate([rows, tokens], 1)
            return self._within_model(lambda: self._logits(sequences))[:, len(ids) :]

    def generate(
        self,
        prompts: list[np.ndarray],
        sampling: Sampling,
        on_tokens: OnTokens | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """See `fpo_core.backend.policy.Policy`."""
        rooms = self._bounds.rooms(prompts, sampling.max_tokens)
        draws = uniforms(prompts, sampling.seed, max(rooms, default=0), numbers)
        if len(ids := self._virtual_ids()):
            prompts = [np.concatenate([ids, prompt]) for prompt in prompts]
        with self._inference():
            return generate_by_room(self._generate, prompts, rooms, sampling, draws, on_tokens)

    def values(self, batch: Batch) -> np.ndarray:
        """See `fpo_core.backend.policy.Policy`."""
        batch = self._bounds.check_batch(batch)
        with self._inference():
            return self._on_host(self._values(batch))

    def _placed(self, value: Value) -> tuple[Callable[[], AbstractContextManager[None]], Array]:
        """What puts a value's adapter in place of the policy's, and its head in the framework."""
        shapes = self._trainable.shapes()
        absent = {
            name: np.zeros(shapes[name], np.float32) for name in shapes.keys() - value.weights
        }
        weights = self._trainable.from_canonical(absent | dict(value.weights))
        like = next(iter(weights.values()))
        head = self.ops.asarray(value.head.astype(np.float32), like)
        return lambda: self._trainable.swapped(weights), head

    def _values(self, batch: Batch) -> Array:
        states = self.ops.as_float(self._final_states(batch))
        return (states @ self.ops.as_float(self._trainable.head(VALUE_HEAD)).T)[..., 0]

    def accumulate_values(
        self, batch: Batch, rewards: np.ndarray, trace: float, weight: float
    ) -> np.ndarray:
        """See `fpo_core.backend.policy.Policy`."""
        batch = self._bounds.check_batch(batch)

        def loss() -> tuple[Array, ValueScores]:
            scores = value_errors(self.ops, self._values(batch), batch, rewards, trace)
            return scores.errors.sum() * weight, scores

        with self._training():
            return self._to_numpy(self._differentiate(loss)).errors

    def seed(self, number: int) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self.devices.seed(number)

    def memory_limit(self) -> int | None:
        """See `fpo_core.backend.policy.Policy`."""
        return self.devices.memory_limit(self.device)

    def peak_memory(self) -> int:
        """See `fpo_core.backend.policy.Policy`."""
        return self.devices.peak_memory(self.device)

    def reset_peak_memory(self) -> None:
        """See `fpo_core.backend.policy.Policy`."""
        self.devices.reset_peak_memory(self.device)

    def memory_in_use(self) -> dict[str, int]:
        """See `fpo_core.backend.policy.Policy`."""
        return self.devices.memory_in_use(self.device)

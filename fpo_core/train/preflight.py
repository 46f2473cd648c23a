"""A trial of the largest batches before anything is written: memory, time and disk of a run."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fpo_core.backend.policy import Policy, Sampling
from fpo_core.config import TrainConfig
from fpo_core.data.batches import Batch, Degraded, bucket_width, collate
from fpo_core.data.batching import scoring_batches
from fpo_core.data.token_store import Int64s, TokenisedPairs
from fpo_core.errors import TrainingError
from fpo_core.events import Sink, progress, silent
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.scores import Scores
from fpo_core.train.online import sampled_at_once
from fpo_core.train.paired_data import spread
from fpo_core.train.schedule import RowPlan
from fpo_core.train.validate import ValidationPlan

_PLANNED = 2000
"""Most steps whose batch shapes are planned; of a longer run, that many spread over it."""
_TRIAL = "trying the largest batches:"
_FULL = 0.95
"""Share of a device's memory above which a run risks running out of it."""
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Preflight:
    """What a run will need."""

    pairs: int
    """Pairs in the largest training batch."""
    width: int
    """Its padded width in tokens."""
    seconds_largest: float
    """Forward and backward of the largest batch, or two scoring passes with the weights' moves."""
    seconds_per_step: float
    """Mean over the run's steps."""
    steps: int
    train_seconds: float
    """All steps, without validation."""
    validation_seconds: float
    """The check before step 1 and every validation."""
    measuring_seconds: float
    """Scoring held-out pairs at the start, and with sequential KL at the end."""
    reference_seconds: float
    """The pass over the pairs whose reference is not stored yet."""
    sampling_seconds: float
    """Drawing fresh samples, and scoring them with the reference; what a judge takes is unknown."""
    peak_memory: int
    memory_limit: int | None
    """Bytes of the device; None where it reports none."""
    disk_bytes: int
    """At most, in the output folder and the reference store."""
    disk_free: int

    @property
    def seconds(self) -> float:
        """The whole run, without texts and answers at its start and end."""
        scoring = self.validation_seconds + self.measuring_seconds + self.reference_seconds
        return self.train_seconds + self.sampling_seconds + scoring

    @property
    def fits(self) -> bool:
        """Whether the largest batch left the device some room."""
        return self.memory_limit is None or self.peak_memory <= _FULL * self.memory_limit

    def to_mapping(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return asdict(self) | {"fits": self.fits}


def preflight(
    policy: Policy,
    train: TokenisedPairs,
    valid: TokenisedPairs | None,
    config: TrainConfig,
    *,
    missing: int,
    emit: Sink = silent,
) -> Preflight:
    """Run the largest batches forward and backward, and estimate the run from them.

    `missing` is how many pairs still lack a stored reference; `emit` hears of each trial. Nothing
    is trained: the optimizer steps at rate 0, and training begins with a new one. Raises
    TrainingError where memory runs out, naming the setting to change, and where the disk is too
    small.
    """
    plan = RowPlan.of(train, config)
    shapes = _Shapes(train.lengths(), plan)
    progress(emit, _TRIAL, 0, 3)
    try:
        scored, score_rate, compare_rate = _try_scoring(policy, train, config)
        progress(emit, _TRIAL, 1, 3)
        largest, seconds_largest = _try_training(policy, train, shapes.largest, config)
        progress(emit, _TRIAL, 2, 3)
        _, seconds_middle = _try_training(policy, train, shapes.middle, config)
        step_seconds, _ = _timed(lambda: _step_at_rate_0(policy, config))
        sampling_rate = _try_sampling(policy, train, config)
        progress(emit, _TRIAL, 3, 3)
    except (MemoryError, RuntimeError) as error:
        raise _out_of_memory(error, shapes, config) from None
    policy.drop_gradients()
    seconds = shapes.step_seconds(seconds_largest, seconds_middle) + step_seconds
    result = Preflight(
        pairs=largest.pairs,
        width=largest.width,
        seconds_largest=seconds_largest,
        seconds_per_step=seconds,
        steps=plan.steps,
        train_seconds=seconds * plan.steps,
        validation_seconds=_scored_tokens(train, valid, plan, config) * compare_rate,
        measuring_seconds=_measured_tokens(train if valid is None else valid, config)
        * compare_rate,
        reference_seconds=score_rate * missing * _tokens(train),
        sampling_seconds=plan.steps
        * (_fresh_samples(config) * sampling_rate + _fresh_tokens(train, config) * score_rate),
        peak_memory=policy.peak_memory(),
        memory_limit=_memory_limit(policy, config),
        disk_bytes=_checkpoint_bytes(policy, config) + missing * _record_bytes(scored, config),
        disk_free=_free(Path(config.output)),
    )
    _check_disk(result, config)
    return result


class _Shapes:
    """Padded tokens of the batches of a run."""

    def __init__(self, lengths: Int64s, plan: RowPlan) -> None:
        self._lengths, self._steps = lengths, []
        batches: list[Int64s] = []
        for step in spread(plan.steps, _PLANNED) + 1:
            window = plan.batches(int(step))
            self._steps.append([self._size(rows) for rows in window])
            batches += window
        order = sorted(batches, key=self._size)
        self.largest, self.middle = order[-1], order[len(order) // 2]

    def _size(self, rows: Int64s) -> int:
        return 2 * len(rows) * bucket_width(int(self._lengths[rows].max()))

    def step_seconds(self, of_largest: float, of_middle: float) -> float:
        """Mean seconds of a step, by a line through the two batches that were timed."""
        # Two points, since the largest batch alone overstates: a step has a cost without tokens.
        high, low = self._size(self.largest), self._size(self.middle)
        slope = (of_largest - of_middle) / (high - low) if high > low else of_middle / low
        sizes = [size for step in self._steps for size in step]
        # Noise may tilt the line below 0 for small batches; none is faster than in proportion.
        seconds = [max(of_middle + slope * (size - low), of_middle * size / high) for size in sizes]
        return float(np.sum(seconds)) / len(self._steps)


def _try_scoring(
    policy: Policy, train: TokenisedPairs, config: TrainConfig
) -> tuple[Scores, float, float]:
    """Score the largest batch of the reference pass: its scores, seconds per token, and seconds per
    token where D is computed too, as in validation.
    """
    rows = scoring_batches(train.lengths(), config.tokens_per_batch, train.prompts())[0]
    batch, tokens = collate(train, rows), train.num_tokens(rows)
    scores = policy.score(batch)  # untimed: the first call compiles and allocates
    seconds, _ = _timed(lambda: policy.score(batch))
    reference = _as_reference(scores)
    compared, _ = _timed(lambda: policy.score(batch, reference, config))
    return scores, seconds / tokens, compared / tokens


def _as_reference(scores: Scores) -> ReferenceBatch:
    truncated = None if scores.pooled is None else np.zeros(len(scores.logps), np.float32)
    return ReferenceBatch(scores.logps, scores.pooled, truncated)


def _try_training(
    policy: Policy, train: TokenisedPairs, rows: Int64s, config: TrainConfig
) -> tuple[Batch, float]:
    """Forward and backward of one batch, or both scoring passes; the second time timed."""
    batch = collate(train, rows)
    reference = _as_reference(policy.score(batch))
    if config.degree_weight:  # no variant is longer than its completion
        levels = np.zeros(2 * batch.pairs, np.int64)
        batch = replace(batch, degraded=Degraded(batch, levels))
    policy.prepare_training(config)

    def run() -> None:
        if not config.zeroth_order:
            policy.accumulate(batch, reference, config, 1 / batch.pairs)
            return
        for _ in range(2):
            with policy.perturbed(0.0):
                policy.score(batch, reference, config, features=config.needs_features)

    run()
    seconds, _ = _timed(run)
    return batch, seconds


def _try_sampling(policy: Policy, train: TokenisedPairs, config: TrainConfig) -> float:
    """Sample the longest prompts of one batch of a pool to the last token: seconds of a sample."""
    if not _fresh_samples(config) or config.sampler != "backend":
        return 0.0
    order = np.argsort(-train.prompt_lengths(), kind="stable")
    longest = len(train[int(order[0])].prompt)
    pool = math.ceil(config.online_every * _fresh_samples(config))
    size = min(sampled_at_once(longest, config), pool)
    prompts = [train[int(order[i // 2 % len(order)])].prompt for i in range(size)]
    sampling = Sampling(config.online_tokens, config.online_temperature)
    seconds, _ = _timed(lambda: policy.generate(prompts, sampling))
    return seconds / size


def _memory_limit(policy: Policy, config: TrainConfig) -> int | None:
    """Bytes of the device that its sampler leaves to training."""
    limit = policy.memory_limit()
    if limit is None or config.sampler == "backend":
        return limit
    return int(limit * (1 - config.vllm_memory))


def _fresh_samples(config: TrainConfig) -> float:
    """Samples that a step needs on average: two for each fresh pair."""
    route = config.route
    if route is None or not route.samples:
        return 0.0
    return 2 * route.share * config.batch_size * config.grad_accumulation_steps


def _fresh_tokens(train: TokenisedPairs, config: TrainConfig) -> float:
    """Tokens of a step's fresh pairs, which the reference scores: those of the data where they are,
    else of samples to the last token.
    """
    if config.route is None:
        return 0.0
    pairs = config.route.share * config.batch_size * config.grad_accumulation_steps
    if not config.route.samples:
        return pairs * _tokens(train)
    return 2 * pairs * (float(train.prompt_lengths().mean()) + config.online_tokens)


def _step_at_rate_0(policy: Policy, config: TrainConfig) -> float:
    if config.zeroth_order:
        return policy.apply_slope(0.0, 0.0, config.max_grad_norm)
    return policy.apply_gradients(0.0, config.max_grad_norm)


def _timed(call: Callable[[], ResultT]) -> tuple[float, ResultT]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _scored_tokens(
    train: TokenisedPairs, valid: TokenisedPairs | None, plan: RowPlan, config: TrainConfig
) -> float:
    """Tokens of the check before step 1 and of every validation, first and last included."""
    checked = min(len(train), config.step0_pairs) * _tokens(train)
    if valid is None:
        return checked
    planned = ValidationPlan.of(len(valid), plan.steps, config)
    return checked + planned.times * planned.pairs * _tokens(valid)


def _measured_tokens(split: TokenisedPairs, config: TrainConfig) -> float:
    """Tokens of the pairs measured at the start and, once more under the reference, at the end."""
    return 3 * min(len(split), config.val_pairs) * _tokens(split)


def _tokens(split: TokenisedPairs) -> float:
    """Mean tokens of a pair."""
    return split.num_tokens(np.arange(len(split))) / len(split)


def _checkpoint_bytes(policy: Policy, config: TrainConfig) -> int:
    """At most: float32 weights and two moments of every checkpoint, result and best weights."""
    arrays = 2 if config.zeroth_order else 3
    # One checkpoint more than stay: the new one is written before the oldest is removed.
    trained = 4 * policy.info.trained_parameters
    whole = 4 * policy.info.parameters if config.fine_tune_type == "full" else 2 * trained
    return arrays * trained * (config.save_total_limit + 1) + 2 * whole


def _record_bytes(scores: Scores, config: TrainConfig) -> int:
    """Stored bytes of a pair, from a batch that was scored."""
    if scores.pooled is None:
        return 64
    active = np.count_nonzero(scores.pooled, axis=-1).mean()
    width = 4 + (2 if config.feature_dtype == "float16" else 4)
    return int(2 * min(active, config.feature_cap) * width) + 64


def _free(folder: Path) -> int:
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(nearest).free


def _check_disk(estimate: Preflight, config: TrainConfig) -> None:
    if estimate.disk_bytes > estimate.disk_free:
        raise TrainingError(
            f"the run may write {estimate.disk_bytes / 2**20:.0f} MiB, but "
            f"{estimate.disk_free / 2**20:.0f} MiB are free at {config.output}: make room, lower "
            "save_total_limit, or choose another output"
        )


def relief(config: TrainConfig) -> str:
    """The change of a setting that lowers memory most at the least cost."""
    if not (config.grad_checkpoint or config.zeroth_order):
        fresh = ", or lower tokens_per_batch, by which fresh samples are drawn"
        return "set grad_checkpoint" + (fresh if _fresh_samples(config) else "")
    if config.batch_size > 1:
        return f"lower batch_size below {config.batch_size} (grad_accumulation_steps makes up)"
    return f"lower max_seq_length below {config.max_seq_length}, or num_layers"


def _out_of_memory(error: Exception, shapes: _Shapes, config: TrainConfig) -> Exception:
    """The error as a sentence, where it is about memory; else as it is."""
    # torch and MLX raise RuntimeErrors here, with no type in common and few words.
    text = str(error).lower()
    if not isinstance(error, MemoryError) and "memory" not in text and "allocate" not in text:
        return error
    return TrainingError(
        f"memory ran out on the largest batch of {len(shapes.largest)} pairs, before step 1: "
        f"{relief(config)}"
    )

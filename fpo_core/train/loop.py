"""The training loop: steps, reports, validation, checkpoints, and ends of every kind."""

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import ALONE, any_of, only_first, wait
from fpo_core.config import TrainConfig
from fpo_core.errors import JudgeError, LostProcessError, StoppedError, TrainingError, WriteError
from fpo_core.events import Event, Sink, note, progress, warn
from fpo_core.loss.metric_catalogue import metric
from fpo_core.loss.metrics import WEAK_SHARE, is_below_floor
from fpo_core.train.checkpoints import Checkpoint, Origin
from fpo_core.train.constraint_share import SharePlan, adapted, measure_share
from fpo_core.train.drift_watch import DriftWatch
from fpo_core.train.online import Drawer, OnlineSource
from fpo_core.train.optimizer_step import Stepper
from fpo_core.train.paired_data import RunData
from fpo_core.train.pool import Pool
from fpo_core.train.resume import check_machine
from fpo_core.train.run_folder import RunFolder
from fpo_core.train.schedule import RowPlan, warmup_steps
from fpo_core.train.state import RunState, Stopwatch, Window
from fpo_core.train.step0 import check_step0
from fpo_core.train.validate import ValidationPlan, validate

StopSignal = Callable[[], int | None]
"""The number of the signal that asks the run to stop, once there is one."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    state: RunState
    steps: int
    """Those planned."""
    early_end: str | None = None
    """Where and why it ended before them, in words that follow "stopped early"."""


def train(
    policy: Policy,
    data: RunData,
    config: TrainConfig,
    folder: RunFolder,
    emit: Sink,
    *,
    checkpoint: Checkpoint | None = None,
    stop: StopSignal = lambda: None,
    online: OnlineSource | None = None,
    watch: DriftWatch | None = None,
) -> TrainResult:
    """Run phase 2 to the end, from a fresh policy or from a checkpoint that fits the run.

    `watch` measures drift on the way; past its bounds the run ends with the weights of the last
    validation within them. Results and checkpoints go to `folder`. An objective or a bound on the
    KL, and an online run, which draws its fresh pairs with `online`, need `hold_reference` before.
    Raises StoreError where the stored reference does not fit the policy, TrainingError where losses
    or gradients stay non-finite, WriteError where the disk is full, and StoppedError, with a
    checkpoint saved, after a step during which `stop` gave a signal; JudgeError likewise where the
    judge of fresh samples fails.
    """
    run = _Run(policy, data, config, folder, emit, watch or DriftWatch(config))
    if online is not None:
        run.drawer = Drawer(policy, data, config, run.plan, online, emit)
    try:
        run.begin() if checkpoint is None else run.resume(checkpoint)
        run.finish(stop)
    except WriteError as error:
        raise WriteError(error.path, error.reason, run.resume_hint()) from None
    except JudgeError as error:
        run.save_before_pool()
        raise JudgeError(f"{error}; {run.resume_hint()}") from None
    except LostProcessError as error:
        raise LostProcessError(f"{error}; {run.resume_hint()}") from None
    return TrainResult(run.state, run.plan.steps, run.early_end())


class _Run:
    def __init__(
        self,
        policy: Policy,
        data: RunData,
        config: TrainConfig,
        folder: RunFolder,
        emit: Sink,
        watch: DriftWatch,
    ) -> None:
        self.policy, self.data, self.config, self.watch = policy, data, config, watch
        watch.check(data.valid)
        self.folder, self.emit, self.group = folder, emit, data.group
        self.plan = RowPlan.of(data.train, config)
        self.stepper = Stepper(policy, data, config, self.plan)
        held_out = 0 if data.valid is None else len(data.valid)
        self.validation = ValidationPlan.of(held_out, self.plan.steps, config)
        # Checkpoints cost no forward pass: they stay ten in a run, however seldom it validates.
        tenth = config.steps_per_eval or max(1, self.plan.steps // 10)
        self.save_every = self.validation.every if watch.bounded else config.save_every or tenth
        self.shares = SharePlan.of(
            len(data.train), self.plan.steps, -(-self.plan.steps // self.validation.every), config
        )
        self.made_with = Origin.made_by(policy.info, data.group.size)
        self.origin = Origin(config.to_mapping(), data.fingerprints(), self.made_with)
        self.state = RunState()
        self.stopwatch = Stopwatch()
        self.drawer: Drawer | None = None
        self.beyond: str | None = None
        """The bound on drift that ended the run, in words that follow "after step …"."""

    def begin(self) -> None:
        """Check the reference, make the optimizer, validate the start."""
        if self.policy.info.fallback is not None:
            warn(self.emit, self.policy.info.fallback)
        if self.policy.info.frozen is not None:
            note(self.emit, self.policy.info.frozen)
        self.state.d_floor = check_step0(self.policy, self.data, self.config, self.emit)
        self.policy.prepare_training(self.config, self.group)
        self._validate()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Restore weights, optimizer, state, log and `best/` to the checkpoint's step."""
        check_machine(checkpoint, self.config, self.made_with)
        self.policy.prepare_training(self.config, self.group)
        checkpoint.load_into(self.policy, self.config)
        self.state = checkpoint.state
        self._take_changes(checkpoint)
        pool = checkpoint.pool(self.data.d_sae)
        self.stepper = replace(self.stepper.with_alpha(self.state.alpha), pool=pool)
        # The first process prunes what the others may still be reading: wait for all.
        wait(self.group)
        only_first(self.group, lambda: self.folder.rewind(checkpoint))
        # The log was cut in front of this event, which the first run wrote after the checkpoint;
        # one saved because the run was asked to stop is none that an undisturbed run would have.
        if self._is_planned(improved=self.state.best_step == self.state.step):
            self.emit(Event("checkpoint", self.state.step))
        self._restore_best()

    def _take_changes(self, checkpoint: Checkpoint) -> None:
        """Put allowed changes of settings in force over what the state kept of the earlier ones."""
        state, config, was = self.state, self.config, checkpoint.origin.config
        if was.get("alpha", config.alpha) != config.alpha:
            state.alpha = None
        metric_changed = was.get("best_metric", config.best_metric) != config.best_metric
        if metric_changed and state.best_step is not None:
            state.best_value = dict(state.evals)[state.best_step][f"eval_{config.best_metric}"]

    def _restore_best(self) -> None:
        """Make `best/` agree with the state again, after an end between the writing of both."""
        state, folder = self.state, self.folder
        if not any_of(self.group, folder.best_step() != state.best_step):
            return
        if state.best_step == state.step:  # it is this checkpoint's: write it from these weights
            folder.save_best(self.policy, state)
            return
        only_first(self.group, folder.drop_best)
        text = f"best/ no longer holds the best result (step {state.best_step}): the next fills it"
        state.best_step = state.best_value = None
        state.stale = 0
        self.emit(Event("warning", state.step, {"message": text}))

    def finish(self, stop: StopSignal) -> None:
        """Every step that is left, then the result."""
        while not self._ended():
            self._step_and_save(stop)
        self.folder.save_result(self.policy)
        if early := self.early_end():
            self.emit(Event("stopped_early", self.state.step, {"message": early}))
        self._warn_of_weak_constraint()
        self._lap()
        self.emit(Event("done", self.state.step, {"seconds": self.state.seconds}))

    def _step_and_save(self, stop: StopSignal) -> None:
        step = self.state.step + 1
        self._draw(step)
        self._step(step)
        progress(self.emit, "training", step, self.plan.steps, step)
        last = step == self.plan.steps
        if last or step % self.config.steps_per_report == 0 or step == 1:
            self._report()
        due = last or step % self.validation.every == 0
        improved = due and self._validate()
        if self.beyond is not None:
            self._return_within_bounds()
            return
        if due:
            self._weigh_constraint()
        ended = self._ended()
        if ended and self.state.window.values:  # stopped early, between two reports
            self._report()
        number = self._stop_signal(stop)
        if number or self._is_planned(improved=improved):
            self._save(improved=improved)
        if number and not ended:
            raise StoppedError(f"stopped after step {step}: {self.resume_hint()}", number)

    def _return_within_bounds(self) -> None:
        """Take the weights and the state of the last validation within the bounds."""
        step, within = self.state.step, self.state.within
        beyond = f"at step {step} {self.beyond}"
        if within is None:
            raise TrainingError(
                f"{beyond}, and no earlier validation of this run was within: lower learning_rate, "
                "validate more often with steps_per_eval, or raise the bound"
            )
        wait(self.group)
        checkpoint = self.folder.checkpoints.newest(lambda text: warn(self.emit, text), within)
        checkpoint.load_into(self.policy, self.config)
        self.state, self.beyond = checkpoint.state, beyond

    def _ended(self) -> bool:
        state = self.state
        if self.beyond is not None:
            return True
        return state.step >= self.plan.steps or state.out_of_patience(self.config.early_stopping)

    def _is_planned(self, *, improved: bool) -> bool:
        """Whether a checkpoint is due after this step in any case."""
        return self._ended() or improved or self.state.step % self.save_every == 0

    def early_end(self) -> str | None:
        """As `TrainResult` has it."""
        state = self.state
        if self.beyond is not None:
            return f"after step {state.step} of {self.plan.steps}: {self.beyond}"
        if state.step >= self.plan.steps:
            return None
        better = "the start" if state.best_step is None else f"step {state.best_step} (in best/)"
        return (
            f"after step {state.step} of {self.plan.steps}: {self.config.best_metric} on held-out "
            f"pairs was no better than at {better} in {state.stale} validations"
        )

    def _stop_signal(self, stop: StopSignal) -> int | None:
        """The signal that asks for a stop, whichever process received it."""
        number = stop()
        # Every process must take the same way, or the next sum over all would wait for ever.
        return (number or signal.SIGTERM) if any_of(self.group, number is not None) else None

    def resume_hint(self) -> str:
        """How to resume, for the message of an untimely end."""
        saved = self.folder.checkpoints.steps()
        if not saved:
            return "there is no checkpoint yet: begin again"
        best = self.state.best_step
        also = f", the best is that of step {best}" if best in saved and best != saved[-1] else ""
        return (
            f"the checkpoint of step {saved[-1]} of {self.plan.steps} is whole{also}: "
            "the same settings with resume go on from it"
        )

    def _draw(self, step: int) -> None:
        """Draw the fresh pairs of an online run where a pool begins."""
        if self.drawer is None:
            return
        if self.drawer.is_due(step):
            self.drawer.config = self.stepper.config
            self.stepper = replace(self.stepper, pool=self.drawer.draw(step))
        self.stepper = replace(self.stepper, baseline=self.state.online_f or 0.0)

    def save_before_pool(self) -> None:
        """Save a checkpoint in front of a pool that could not be drawn, which begins with one."""
        saved = self.state.step in self.folder.checkpoints.steps()
        if self.group.rank or not self.state.step or saved or self.state.diverges:
            return
        # The others hear that the first process failed, and save nothing with it.
        replace(self.folder, group=ALONE).save_checkpoint(self.policy, self.state, self.origin)

    def _step(self, step: int) -> None:
        """One optimizer step; skipped where anything is not finite."""
        self._lap()
        result = self.stepper.take(step)
        state, metrics = self.state, result.metrics
        state.step = step
        state.num_tokens += result.tokens
        seconds = self._lap()
        if not result.applied:
            self._skip(metrics["loss"], metrics["grad_norm"])
            return
        state.nonfinite_in_a_row = 0
        state.note_loss(metrics["loss"])
        state.note_online(result.online_f)
        state.last_d = metrics.get("fpo/d_rejected")
        state.window.add(metrics, result.tokens, seconds)
        # During the warm-up the margin has hardly moved, and the ratio means nothing; before the
        # first update the policy is the reference, so that D is 0 whatever alpha is.
        moved = step - state.skipped > 1 and step > warmup_steps(self.plan.steps, self.config)
        if moved and "fpo/constraint_ratio" in metrics:
            state.ratios.append(metrics["fpo/constraint_ratio"])

    def _lap(self) -> float:
        """Add the time since the last call to the run's; return it."""
        passed = self.stopwatch.lap()
        self.state.seconds += passed
        return passed

    def _skip(self, loss: float, norm: float) -> None:
        state = self.state
        state.nonfinite_in_a_row += 1
        state.skipped += 1
        self.emit(Event("skipped", state.step, {"loss": str(loss), "grad_norm": str(norm)}))
        if state.nonfinite_in_a_row >= self.config.nonfinite_limit:
            raise TrainingError(
                f"loss or gradient was not finite {state.nonfinite_in_a_row} steps in a row, up to "
                f"step {state.step}: lower learning_rate or set dtype to float32; "
                f"{self.resume_hint()}"
            )

    def _report(self) -> None:
        state = self.state
        values = state.window.means() | {
            "epoch": self.plan.epoch(state.step),
            "num_tokens": state.num_tokens,
            "skipped": state.skipped,
            "peak_memory": self.policy.peak_memory(),
            "steps": self.plan.steps,
            **self.policy.memory_in_use(),
        }
        state.window = Window()
        self.emit(Event("train", state.step, values))
        if "loss" in values:
            state.last = values
            state.first = state.first or values

    def _validate(self) -> bool:
        """Score the validation pairs; whether they are the best so far."""
        values = validate(
            self.policy,
            self.data,
            self.config,
            pairs=self.validation.pairs,
            tokens_per_batch=self.config.tokens_per_batch,
            emit=self.emit,
        ) | self.watch.measure(self.policy, self.data)
        if not values:
            return False
        state = self.state
        state.evals.append((state.step, values))
        self.emit(Event("eval", state.step, values))
        if not state.step or self._is_beyond() or self.data.valid is None:
            return False
        state.stale += 1
        value, best = values[f"eval_{self.config.best_metric}"], state.best_value
        better = best is None or metric(self.config.best_metric).improves(value, best)
        if not (math.isfinite(value) and better):
            return False
        state.best_value, state.best_step, state.stale = value, state.step, 0
        return True

    def _is_beyond(self) -> bool:
        """Whether the last validation is beyond a bound on drift; warns where drift is far."""
        state = self.state
        *_, (_, before), (_, values) = [(0, {}), *state.evals]
        # A run of an earlier version may have none of its start.
        start = dict(state.evals).get(0, {})
        beyond = self.watch.beyond(values, start)
        # Every process must take the same way, whatever the last digits of its own measurement.
        if any_of(self.group, not self.group.rank and beyond is not None):
            self.beyond = beyond or "drift was beyond its bound in the first process"
            return True
        state.within = state.step if self.watch.bounded else None
        if far := self.watch.warning(values, start, before):
            self.emit(Event("warning", state.step, {"message": far}))
        return False

    def _weigh_constraint(self) -> None:
        """Measure the constraint's share of the gradient where it is due; adapt α to the target."""
        state, config = self.state, self.config
        left = -(-(self.plan.steps - state.step) // self.validation.every)
        if not self.shares.is_due(left) or state.nonfinite_in_a_row:
            return
        in_force = self.stepper.config
        share = measure_share(self.policy, self.data, in_force, self.shares.pairs, state.step)
        if math.isnan(share):  # a preference without gradient, as of a hinge that no pair touches
            return
        alpha = in_force.constraint_weight
        state.shares.append((state.step, share))
        values = {"fpo/constraint_share": share, "fpo/alpha": alpha}
        self.emit(Event("constraint", state.step, values | {"below_floor": self._is_below_floor()}))
        # Below its floor D is rounding, and α would be raised for nothing.
        if config.constraint_share is not None and not self._is_below_floor():
            start = config.constraint_weight
            state.alpha = adapted(alpha, share, config.constraint_share, start)
            self.stepper = self.stepper.with_alpha(state.alpha)

    def _is_below_floor(self) -> bool:
        """Whether D of the last validation, or else of the last step, is no more than rounding."""
        if self.config.needs_kl:  # what it constrains is not D
            return False
        d = self.state.last_d
        if self.data.valid is not None:
            d = self.state.evals[-1][1].get("eval_fpo/d_rejected")
        return is_below_floor(d, self.state.d_floor)

    def _save(self, *, improved: bool) -> None:
        """Save a checkpoint and then, where validation `improved`, the best result.

        A run that diverges saves none, so that those from before remain.
        """
        self._lap()
        if self.state.diverges and not improved:
            text = (
                "the loss is not finite or far beyond its history: no checkpoint of step "
                f"{self.state.step} is saved"
            )
            self.emit(Event("warning", self.state.step, {"message": text}))
            return
        self.folder.save_checkpoint(self.policy, self.state, self.origin, self._pool_ahead())
        self.emit(Event("checkpoint", self.state.step))
        if improved:
            self.folder.save_best(self.policy, self.state)

    def _pool_ahead(self) -> Pool | None:
        """The pool, where it has pairs of steps to come."""
        ends = self.drawer is None or self.drawer.is_due(self.state.step + 1)
        return None if ends else self.stepper.pool

    def _warn_of_weak_constraint(self) -> None:
        share = self.state.constraint_share
        if share is not None and share < WEAK_SHARE and not self._is_below_floor():
            weight = "alpha" if "alpha" in self.config.coefficients else "beta"
            text = (
                f"the constraint hardly took part (its gradient is {share:.2g} of the preference's)"
                f": raise {weight}"
            )
            self.emit(Event("warning", self.state.step, {"message": text}))

"""A whole run, for `fpo train` and `fpo quickstart`: checks, phase 1, phase 2, measurements."""

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.measure import Gauge, Measured, findings
from fpo.plots import draw_curves
from fpo.preflight import foresee
from fpo.session import Session, splits_of
from fpo.stores import training_store
from fpo.trackers import check_trackers, open_trackers
from fpo_cli.console.progress import ProgressDisplay
from fpo_cli.console.signals import stop_signals
from fpo_cli.console.ui import Ui
from fpo_core.adapters.lora import select_blocks
from fpo_core.backend.optimizer_state import check_optimizer
from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import first_before_others, only_first
from fpo_core.config import AdapterConfig, TrainConfig
from fpo_core.data.load import PreferenceData
from fpo_core.data.report import DataReport
from fpo_core.errors import ConfigError
from fpo_core.evaluation.model_card import (
    CARD_FILE,
    PICTURE,
    RunFacts,
    shown,
    train_card,
    write_card,
)
from fpo_core.evaluation.texts import read_texts
from fpo_core.evaluation.verdict import verdict
from fpo_core.events import JsonlLog, fan_out, silent
from fpo_core.models.folder import check_quantised
from fpo_core.sae.load import check_constraint_trains
from fpo_core.train import RunData, TrainResult, hold_reference, train
from fpo_core.train.checkpoints import Checkpoint
from fpo_core.train.paired_data import fingerprints
from fpo_core.train.preflight import Preflight
from fpo_core.train.resume import check_unchanged, check_unfinished, find_checkpoint
from fpo_core.train.run_folder import RunFolder
from fpo_core.train.schedule import RowPlan
from fpo_core.train.validate import check_judged


@dataclass(frozen=True)
class Checked:
    """A run that may start: whatever can be refused without the model's weights was not."""

    session: Session
    config: TrainConfig
    data: PreferenceData
    store: Path
    texts: list[str]
    checkpoint: Checkpoint | None
    """Where the run goes on; None where it begins."""


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    result: TrainResult
    before: Measured | None
    """None where the start was not measured."""
    after: Measured
    folder: RunFolder
    store: Path
    verdict: list[str]

    def to_mapping(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {
            "output": str(self.folder.path),
            "reference": str(self.store),
            "log": str(self.folder.log),
            "steps": self.result.state.step,
            "stopped_early": self.result.early_end is not None,
            "skipped": self.result.state.skipped,
            "best_step": self.result.state.best_step,
            "num_tokens": self.result.state.num_tokens,
            "loss_first": self.result.state.first.get("loss"),
            "loss_last": self.result.state.last.get("loss"),
            "constraint_ratio": self.result.state.constraint_ratio,
            "train_seconds": self.result.state.seconds,
            "before": self.before and self.before.to_mapping(),
            "after": self.after.to_mapping(),
            "verdict": self.verdict,
        }


def check_run(
    config: TrainConfig, ui: Ui, session: Session | None = None, *, finished_too: bool = False
) -> Checked:
    """Refuse what can be refused before weights are loaded or anything is written.

    With `finished_too`, a run with no step left may be resumed, to be measured.
    """
    session = session or Session(config)
    with first_before_others(session.group):
        return _checked(session, config, ui, finished_too)


def _checked(session: Session, config: TrainConfig, ui: Ui, finished_too: bool) -> Checked:
    check_optimizer(config.optimizer, session.backend)
    check_folder(config.output)
    check_trackers(config)
    checkpoint = find_checkpoint(config, ui.warn)
    _check_start(config)
    config = _shaped(session, config)
    select_blocks(session.model.layers, config.num_layers)
    check_quantised(config.fine_tune_type, session.model.quantisation is not None)
    if config.needs_features and session.features is not None:
        for hook in session.features.hooks:
            check_constraint_trains(hook, session.model, config)
    texts = [] if config.text is None else read_texts(Path(config.text))
    data = session.load_data(config)
    check_judged(config, data.valid)
    store = training_store(session, config.reference, config.output, config.cache)
    if checkpoint is not None:
        tap = session.features
        found = fingerprints(
            session.key,
            data.train,
            data.valid,
            features=tap is not None,
            weights=None if tap is None else tap.weights,
        )
        check_unchanged(checkpoint, config, found)
        if not finished_too:
            check_unfinished(checkpoint, config, RowPlan.of(data.train.lengths(), config).steps)
    return Checked(session, config, data, store, texts, checkpoint)


def announce(ui: Ui, session: Session, report: DataReport) -> None:
    """What a command works on, once nothing is left that could be refused."""
    ui.note(f"{session.backend}, {session.model.name}")
    if session.model.quantisation is not None and session.features is not None:
        ui.warn(
            "the model is quantised: its activations differ from those that the autoencoder was "
            "trained on, and so do its features"
        )
    if session.left_out:
        ui.warn(
            f"the adapter leaves out {session.left_out} modules that others of its blocks have: "
            "they start at zero, and training moves them too"
        )
    for line in report.lines():
        ui.note(line)


def check_folder(output: str) -> None:
    """Raise ConfigError where no folder can be made or written at `output`."""
    path = Path(output)
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise ConfigError(f"output is {output}, but {nearest} is a file: expected a folder")
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"output is {output}, but {nearest} cannot be written: choose another")


def _check_start(config: TrainConfig) -> None:
    if config.adapter is not None and config.fine_tune_type == "full":
        raise ConfigError(
            "adapter is set while fine_tune_type is full, expected lora or dora: a full run "
            "cannot go on from an adapter"
        )


def _shaped(session: Session, config: TrainConfig) -> TrainConfig:
    """The configuration with rank, scale and modules of the adapter that the run starts from."""
    shape = session.adapter_config(config)
    for name in ("fine_tune_type", "rank", "scale", "num_layers"):
        wanted, there = getattr(config, name), getattr(shape, name)
        if wanted not in (there, getattr(AdapterConfig(), name)):
            raise ConfigError(
                f"{name} is {wanted}, but the adapter {config.adapter} has {there}, and the run "
                f"starts from it: leave {name} out"
            )
    return dataclasses.replace(config, **{n: getattr(shape, n) for n in AdapterConfig.names()})


def dry_run(checked: Checked, ui: Ui) -> Preflight:
    """What a run would need, and nothing else."""
    return _foresee(checked, _start(checked, ui), ui)


def _start(checked: Checked, ui: Ui) -> Policy:
    policy = checked.session.policy(checked.config, grad_checkpoint=checked.config.grad_checkpoint)
    announce(ui, checked.session, checked.data.report)
    hold_reference(policy, checked.config, lambda event: ui.warn(event.values["message"]))
    return policy


def _foresee(checked: Checked, policy: Policy, ui: Ui) -> Preflight:
    return foresee(policy, checked.data, checked.store, checked.session.key, checked.config, ui)


def run(checked: Checked, ui: Ui, *, measure_start: bool = True, **gauge_options: Any) -> Outcome:
    """Phase 1, phase 2, and the same measurements before and after.

    `gauge_options` are those of `Gauge`; an `objective` among them is measured in place of the
    run's. Where the start is not measured, no model card is written either.
    """
    config, session, data = checked.config, checked.session, checked.data
    group = session.group
    policy = _start(checked, ui)
    checkpoint = checked.checkpoint
    if config.preflight and checkpoint is None:
        _foresee(checked, policy, ui)
    with ProgressDisplay(ui) as display:
        store = session.reference(checked.store, splits_of(data), policy, config, display)
        folder = RunFolder(Path(config.output), session.model, config)
        if checkpoint is None:
            only_first(group, folder.begin)
        run_data = RunData.of(data, store, session.features, group)
        gauge = make_gauge(checked, run_data, gauge_options)
        start = policy.trained()
        before = None
        if measure_start:
            ui.note("measuring the start")
            before = _at_the_reference(gauge.measure(policy))
        if checkpoint is not None:
            ui.note(f"going on after step {checkpoint.state.step}")
        with (
            contextlib.nullcontext([]) if group.rank else open_trackers(config) as trackers,
            stop_signals(ui, patient=group.size > 1) as stop,
        ):
            emit = silent if group.rank else fan_out(JsonlLog(folder.log), display, *trackers)
            result = train(policy, run_data, config, folder, emit, checkpoint=checkpoint, stop=stop)
        ui.note("measuring the end" + _kl_cost(config, start))
        policy.set_reference(start)
        after = gauge.measure(policy, kl=True)
    found = findings(
        before,
        after,
        config,
        held_out=data.valid is not None,
        constraint_ratio=result.state.constraint_ratio,
        early_end=result.early_end,
    )
    outcome = Outcome(result, before, after, folder, checked.store, verdict(found))
    if before is not None:
        described = before.to_mapping()
        only_first(group, lambda: _describe(checked, outcome, described, run_data, ui))
    return outcome


def _describe(
    checked: Checked, outcome: Outcome, before: dict[str, Any], run_data: RunData, ui: Ui
) -> None:
    """Leave the curves and the model card beside the result."""
    config, session, folder = checked.config, checked.session, outcome.folder.path
    draw_curves(outcome.folder.log, folder / PICTURE, f"{shown(config.output)}, {session.backend}")
    facts = RunFacts(
        base=config.model,
        backend=session.backend,
        steps=outcome.result.state.step,
        rows={name: split.kept for name, split in checked.data.report.splits.items()},
        data=run_data.fingerprints()["data"] or "",
        features=session.features,
        before=before,
        after=outcome.after.to_mapping(),
    )
    if not write_card(folder, train_card(config, facts)):
        ui.note(f"{folder / CARD_FILE} is not of this program and was left as it is")


def _at_the_reference(measured: Measured) -> Measured:
    """The start is the reference itself: its KL is 0 and need not be measured."""
    measured.evaluation.metrics.update({"fpo/kl_chosen": 0.0, "fpo/kl_rejected": 0.0})
    return measured


def make_gauge(checked: Checked, run_data: RunData, options: dict[str, Any]) -> Gauge:
    """The measurements of a run: its validation pairs, or training pairs where there are none."""
    config = checked.config
    options = {"objective": config, "pairs": config.val_pairs} | options
    return Gauge(
        data=run_data,
        split=run_data.train if run_data.valid is None else run_data.valid,
        tokens_per_batch=config.tokens_per_batch,
        tokenizer=checked.session.tokenizer,
        texts=checked.texts,
        text_width=config.max_seq_length,
        **options,
    )


def _kl_cost(config: TrainConfig, start: dict[str, Any]) -> str:
    """Full fine-tuning has no adapter to switch off: the start is a copy of what was trained."""
    if config.fine_tune_type != "full":
        return ""
    size = sum(weight.nbytes for weight in start.values()) / 2**20
    return f" (sequential KL holds one extra copy of the trained weights, {size:.0f} MiB)"

"""What can be refused before a run loads weights or writes anything."""

import contextlib
import dataclasses
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo.model_setup import ModelSetup, splits_of
from fpo.reporting.page_file import REPORT_FILE
from fpo.store_location import training_store
from fpo.trackers import check_trackers
from fpo_core.adapters.lora import select_blocks
from fpo_core.backend.heartbeat import heartbeat
from fpo_core.backend.optimizer_state import check_optimizer
from fpo_core.backend.process_group import (
    ALONE,
    Group,
    check_same_settings,
    first_before_others,
    only_first,
)
from fpo_core.config import AdapterConfig, DataConfig, TrainConfig
from fpo_core.config.backends import BACKENDS
from fpo_core.data.load import PreferenceData
from fpo_core.data.report import DataReport
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import writes_date
from fpo_core.errors import BackendError, ConfigError, DataError
from fpo_core.evaluation.greedy_answers import Question, questions_of
from fpo_core.evaluation.model_card import CARD_FILE
from fpo_core.evaluation.texts import texts_of
from fpo_core.events import Sink, note, warn
from fpo_core.io.leftovers import remove_leftovers
from fpo_core.io.lock import locked
from fpo_core.models.folder import ModelFolder, check_quantised
from fpo_core.sae.load import check_constraint_trains, refuse_doubts
from fpo_core.train.checkpoints import Checkpoint
from fpo_core.train.drift_watch import DriftWatch
from fpo_core.train.paired_data import fingerprints
from fpo_core.train.resume import (
    as_begun,
    check_unchanged,
    check_unfinished,
    find_checkpoint,
)
from fpo_core.train.run_folder import check_output
from fpo_core.train.schedule import RowPlan
from fpo_core.train.validate import check_judged

_DATED = (
    " (its chat template writes the date: set template_date to the day on which the run began, "
    "where that wrote another)"
)
_KEPT_END = " (replies that are cut kept their end of turn then: set truncation to keep-end)"


@dataclass(frozen=True)
class ValidatedRun:
    """A validated run: every check that needs no weights has passed."""

    setup: ModelSetup
    config: TrainConfig
    data: PreferenceData
    store: Path
    texts: list[str]
    questions: list[Question]
    checkpoint: Checkpoint | None
    """Where the run goes on; None where it begins."""


def check_run(
    config: TrainConfig, sink: Sink, setup: ModelSetup | None = None, *, finished_too: bool = False
) -> ValidatedRun:
    """Refuse what can be refused before weights are loaded or anything is written.

    With `finished_too`, a run with no step left may be resumed, to be measured.
    """
    setup = setup or ModelSetup(config)
    check_same_settings(setup.group, config.to_mapping())
    with first_before_others(setup.group):
        run = _validated(setup, config, sink, finished_too)
    made_with = {} if run.checkpoint is None else run.checkpoint.origin.made_with
    setup.settle_dtype(sink, run.store, made_with.get("dtype"))
    return run


def _validated(
    setup: ModelSetup, config: TrainConfig, sink: Sink, finished_too: bool
) -> ValidatedRun:
    # Cheap checks first: the tokenised data may take minutes.
    check_optimizer(config.optimizer, setup.backend)
    _check_shard(setup, config)
    check_folder(config.output)
    check_output(config)
    check_trackers(config)
    checkpoint = find_checkpoint(config, lambda text: warn(sink, text))
    config = config if checkpoint is None else as_begun(config, checkpoint)
    _check_start(config)
    config = _shaped(setup, config)
    config = at_width(setup.model.width, config, checkpoint)
    select_blocks(setup.model.layers, config.num_layers)
    check_quantised(config.fine_tune_type, setup.model.quantisation is not None)
    if config.strict:
        refuse_doubts(setup.features)
    if config.needs_features and setup.features is not None:
        for hook in setup.features.hooks:
            check_constraint_trains(hook, setup.model, config)
    texts, questions = texts_of(config.text), questions_of(config.prompts)
    data = setup.load_data(config)
    check_positions(setup.model, splits_of(data), config, sink)
    check_judged(config, data.valid)
    DriftWatch(config).check(data.valid)
    store = training_store(setup, config.reference, config.output, config.cache)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, setup, config, data, finished_too)
    return ValidatedRun(setup, config, data, store, texts, questions, checkpoint)


def _check_checkpoint(
    checkpoint: Checkpoint,
    setup: ModelSetup,
    config: TrainConfig,
    data: PreferenceData,
    finished_too: bool,
) -> None:
    """Raise TrainingError where the run that goes on is not the one that was stopped."""
    tap = setup.features
    inputs = fingerprints(
        setup.key,
        data.train,
        data.valid,
        features=tap is not None,
        weights=None if tap is None else tap.weights,
    )
    causes = {"data": _DATED} if writes_date(setup.tokenizer) else {}
    if "truncation" not in checkpoint.origin.config:
        causes["data"] = _KEPT_END
    check_unchanged(checkpoint, config, inputs, causes)
    if not finished_too:
        # What is written last: a run stopped while its end was measured goes on with that.
        last = Path(config.output) / (REPORT_FILE if config.report else CARD_FILE)
        steps = RowPlan.of(data.train, config).steps
        check_unfinished(checkpoint, config, steps, described=last.exists())


def check_positions(
    model: ModelFolder, splits: Sequence[TokenisedPairs], config: DataConfig, sink: Sink
) -> None:
    """Warn of pairs longer than the model's positions, with their number; DataError if `strict`."""
    limit = model.positions
    lengths = np.concatenate([split.lengths() for split in splits])
    if limit is None or not (over := int((lengths > limit).sum())):
        return
    text = (
        f"{over} of {len(lengths)} pairs are longer than the {limit} positions of {model.name}, up "
        f"to {lengths.max()} tokens, where it computes what it never learnt: lower max_seq_length"
    )
    if config.strict:
        raise DataError(text)
    warn(sink, text)


def announce(sink: Sink, setup: ModelSetup, report: DataReport) -> None:
    """Report what a workflow works on, once nothing is left that could be refused."""
    note(sink, f"{setup.backend}, {setup.model.name}")
    setup.warn_of_base(setup.config.adapter, sink)
    if setup.model.quantisation is not None and setup.features is not None:
        warn(
            sink,
            "the model is quantised: its activations differ from those that the autoencoder was "
            "trained on, and so do its features",
        )
    for doubt in () if setup.features is None else setup.features.doubts:
        warn(sink, doubt)
    if setup.left_out:
        warn(
            sink,
            f"the adapter leaves out {setup.left_out} modules that others of its blocks have: "
            "they start at zero, and training moves them too",
        )
    for line in report.lines():
        note(sink, line)


def check_folder(output: str) -> None:
    """Raise ConfigError where no folder can be created or written at `output`."""
    path = Path(output)
    nearest = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise ConfigError(f"output is {output}, but {nearest} is a file: expected a folder")
    if not os.access(nearest, os.W_OK):
        raise ConfigError(f"output is {output}, but {nearest} cannot be written: choose another")


def _hold(stack: contextlib.ExitStack, output: Path) -> None:
    stack.enter_context(locked(output))
    remove_leftovers(output, locked=True)


@contextlib.contextmanager
def writing_output(
    output: str, group: Group = ALONE, process_timeout: float = math.inf
) -> Iterator[None]:
    """Hold the lock of an output folder, in the first process for all, and watch the others.

    Raises LockedError where another run writes there, ConfigError where none can.
    """
    check_folder(output)
    with contextlib.ExitStack() as stack:
        only_first(group, lambda: _hold(stack, Path(output)))

        def lost(rank: int) -> None:
            print(
                f"fpo, process {group.rank}: process {rank} gave no sign of life for "
                f"{process_timeout:g} s (process_timeout): look at its machine, then go on from "
                "the last checkpoint with resume",
                file=sys.stderr,
                flush=True,
            )
            os._exit(2)  # the main thread waits in a sum that nothing can end

        stack.enter_context(heartbeat(group, Path(output), process_timeout, lost))
        yield


def _check_shard(setup: ModelSetup, config: TrainConfig) -> None:
    """Raise BackendError or ConfigError where a model cannot be split as the settings ask."""
    backend = BACKENDS[setup.backend]
    if config.shard and backend.unsharded is not None:
        raise BackendError(
            f"shard is set, but every process of {setup.backend} holds the whole model: leave it "
            f"out and use {backend.unsharded}, or use the torch backend"
        )
    if config.shard and setup.group.size == 1:
        raise ConfigError(
            "shard is set, but this is one process: start several with "
            f"{backend.launcher}, or leave shard out"
        )


def _check_start(config: TrainConfig) -> None:
    if config.adapter is not None and config.fine_tune_type == "full":
        raise ConfigError(
            "adapter is set while fine_tune_type is full, expected lora or dora: a full run "
            "cannot go on from an adapter"
        )


def at_width(width: int | None, config: TrainConfig, checkpoint: Checkpoint | None) -> TrainConfig:
    """The configuration with the preset's learning rate for this hidden size, where it has none."""
    if config.learning_rate is not None:
        return config
    rate = config.learning_rate_at(width)
    if checkpoint is not None:
        was = checkpoint.origin.config.get("learning_rate")
        # Of before the rate went with the width, or with more of the supervised term.
        if was in (None, config.learning_rate_at(None)):
            rate = was
    return dataclasses.replace(config, learning_rate=rate)


def _shaped(setup: ModelSetup, config: TrainConfig) -> TrainConfig:
    """The configuration with rank, scale and modules of the adapter that the run starts from."""
    shape = setup.adapter_config(config)
    for name in ("fine_tune_type", "rank", "scale", "num_layers", "virtual_tokens"):
        wanted, present = getattr(config, name), getattr(shape, name)
        if wanted not in (present, getattr(AdapterConfig(), name)):
            raise ConfigError(
                f"{name} is {wanted}, but the adapter {config.adapter} has {present}, and the run "
                f"starts from it: leave {name} out"
            )
    return dataclasses.replace(config, **{n: getattr(shape, n) for n in AdapterConfig.names()})

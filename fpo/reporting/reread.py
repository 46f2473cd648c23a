"""Reading a run's model again, where the run left no record, or more is asked for."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fpo.model_setup import ModelSetup
from fpo.reporting.known_reference import known_reference
from fpo.reporting.record import Record, inspected
from fpo.reporting.run_record import about_run, settings_rows
from fpo.store_location import evaluation_store
from fpo_core.adapters.folders import load_any_adapter
from fpo_core.backend.policy import Policy
from fpo_core.backend.reference_weights import reference_weights
from fpo_core.config import ReportConfig, ReportedConfig, TrainConfig
from fpo_core.errors import ConfigError
from fpo_core.evaluation.inspection import Inspection, inspect, reference_tokens
from fpo_core.evaluation.logit_lens import promoted_tokens
from fpo_core.events import Sink, note
from fpo_core.io.regular import read_json_object
from fpo_core.sae.taps import Features
from fpo_core.train.paired_data import RunData, spread
from fpo_core.train.run_folder import CONFIG_FILE

PROMOTED = 8
"""Tokens that a feature's direction promotes, as many are shown."""


def config_of(folder: Path) -> TrainConfig:
    """The settings of a run, those that this version knows. Raises ConfigError for bad ones."""
    values = read_json_object(folder / CONFIG_FILE, ConfigError)
    known = {key: value for key, value in values.items() if key in TrainConfig.names()}
    return TrainConfig.from_mapping(known, str(folder / CONFIG_FILE))


def record_of_log(folder: Path) -> Record:
    """A record of a run that left none: its settings, and no measurements."""
    config = config_of(folder)
    return {
        "title": folder.resolve().name,
        "about": about_run(config, config.backend, None),
        **settings_rows(config),
    }


def inspect_again(
    folder: Path, config: ReportConfig, sink: Sink, record: Record | None = None
) -> Record:
    """Pairs and features of a run, by loading its model, pairs and stored reference.

    What its `record` shows of the reference is not computed again.
    """
    run = config_of(folder)
    run = dataclasses.replace(run, **computed_by(config))
    setup = ModelSetup(run)
    note(sink, f"reading {folder} again on {setup.backend}")
    data = setup.load_data(run)
    split = data.train if data.valid is None else data.valid
    trained = _trained(folder, run, setup)
    policy = setup.policy(run)
    start = reference_weights(policy)
    place = evaluation_store(setup, run.reference, (folder,), run.cache, split)
    store = setup.reference(place, [split], policy, run, sink)
    policy.set_reference(start)
    policy.load_trained(start | trained)
    shown = ReportedConfig(
        shown_pairs=config.shown_pairs or run.shown_pairs,
        shown_features=config.shown_features or run.shown_features,
    )
    run_data = RunData.of(data, store, setup.features)
    rows = spread(len(split), shown.shown_pairs)
    known = known_reference(folder, record, split, rows, setup.tokenizer)
    before = reference_tokens(
        policy, run_data, split, rows, run.tokens_per_batch, swap=True, known=known
    )
    inspection = inspect(
        policy,
        run_data,
        split,
        run,
        pairs=shown.shown_pairs,
        features=setup.features,
        shown_features=shown.shown_features,
        tokens_per_batch=run.tokens_per_batch,
        before=before,
        emit=sink,
    )
    return inspected_with_lens(policy, inspection, setup.tokenizer, setup.features, shown)


def computed_by(config: ReportConfig) -> dict[str, str]:
    """Backend, device and precision that are asked for, where they are."""
    settings = {name: getattr(config, name) for name in ("backend", "device", "dtype")}
    return {name: value for name, value in settings.items() if value != "auto"}


def _trained(folder: Path, run: TrainConfig, setup: ModelSetup) -> dict[str, np.ndarray]:
    """The trained weights that a run left."""
    if run.fine_tune_type != "full":
        return load_any_adapter(folder, setup.model).weights
    # Loaded for its weights and let go before the model that it came from is.
    whole = ModelSetup(dataclasses.replace(run, model=str(folder)))
    return whole.policy(run).trained()


def inspected_with_lens(
    policy: Policy,
    inspection: Inspection,
    tokenizer: Any,
    features: Features | None,
    shown: ReportedConfig,
    sides: Sequence[str] = ("chosen", "rejected"),
) -> Record:
    """An inspection as JSON values, with the tokens that features promote."""
    lens: dict[int, list[int]] = {}
    for number, hooked in enumerate(() if features is None else features.hooked):
        at = [n for n, f in enumerate(inspection.features) if f.move.sae == number]
        indices = [inspection.features[n].move.index for n in at]
        promoted = promoted_tokens(policy, hooked.sae, hooked.hook.site, indices, PROMOTED)
        lens |= dict(zip(at, promoted or [], strict=False))
    counts = {"shown": [shown.shown_pairs, shown.shown_features]}
    return inspected(inspection, tokenizer, features, lens, sides) | counts

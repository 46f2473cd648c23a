"""The rounds of a federation: what is exchanged, where they go on, the adapter that they end in."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fpo.federation.nodes import ask
from fpo.federation.report import Federation
from fpo.federation.secure_rounds import secure_rounds
from fpo.federation.strategies import (
    PAIRS,
    Checked,
    Ledger,
    arrays_of,
    make_strategy,
    numpy_of,
)
from fpo.model_setup import ModelSetup
from fpo.run_checks import at_width
from fpo_core.adapters.folders import save_trained
from fpo_core.config.federated import FederateConfig
from fpo_core.errors import ConfigError, TrainingError
from fpo_core.events import Sink, note, warn
from fpo_core.federated.layers import chosen_blocks, exchanged, mean_scores, random_blocks
from fpo_core.federated.weight_files import Weights
from fpo_core.io.atomic import write_folder, write_json


def run_rounds(
    config: FederateConfig,
    grid: Grid,
    setup: ModelSetup,
    start: Weights,
    sink: Sink,
    wrap: Callable[[Strategy], Strategy] = lambda strategy: strategy,
) -> Federation:
    """Run the rounds that are left, write the server's adapter, have all clients evaluate it.

    `start` are all weights that a client trains, before the first round; `wrap` may put one of
    Flower's privacy strategies around the one that the settings name. Raises TrainingError where no
    client answers in the end, ConfigError where secure aggregation meets such a wrapper.
    """
    output = Path(config.output)
    ledger = Ledger(output, sink)
    weights = ledger.open()
    if weights is None:
        ledger.blocks = _exchanged_blocks(config, grid, setup, sink)
        frozen = config.freeze_a and config.fine_tune_type == "lora"
        names = exchanged(start, ledger.blocks, freeze_a=frozen)
        weights = {name: start[name] for name in names}
    of_clients = at_width(setup.model.width, config, None)
    base = make_strategy(config, of_clients.peak_learning_rate(config.fine_tune_type))
    strategy = wrap(base)
    if config.secure_aggregation:
        if strategy is not base:
            raise ConfigError(
                "secure_aggregation is set, but the server app wraps its strategy: Flower's "
                "SecAgg+ takes no wrapper, so drop one of the two"
            )
        weights = secure_rounds(config, grid, ledger, weights, config.seed)
    else:
        result = Checked(base, ledger, config, config.seed, strategy).start(
            grid,
            arrays_of(weights),
            max(config.rounds - len(ledger.rounds), 0),
            config.round_timeout,
            train_config=ConfigRecord({"local-iters": config.local_iters}),
        )
        weights = numpy_of(result.arrays) if len(result.arrays) else weights
    final = start | weights
    write_folder(
        output / "adapter",
        lambda folder: save_trained(folder, final, config, config.model, setup.model),
    )
    content = RecordDict({"arrays": arrays_of(weights)})
    clients = ask(grid, MessageType.EVALUATE, content, config, sink, _held_out)
    if not clients:
        raise TrainingError(f"no client evaluated {output / 'adapter'}: resume to ask them again")
    if training := [name for name, values in clients.items() if not values["held_out"]]:
        warn(
            sink,
            f"{', '.join(training)} held out no pairs, so accuracies are of those trained on: set "
            "valid_fraction",
        )
    federation = Federation(
        output=output, rounds=ledger.rounds, blocks=ledger.blocks, clients=clients
    )
    write_json(output / "federation.json", federation.to_mapping())
    return federation


def _held_out(metrics: Mapping[str, Any]) -> dict[str, float]:
    """A client's accuracies, in plain numbers."""
    values = {
        "accuracy": float(metrics["accuracy"]),
        "reward_accuracy": float(metrics["reward_accuracy"]),
        "loss": float(metrics["loss"]),
        "pairs": float(metrics[PAIRS]),
        "held_out": float(metrics["held_out"]),
    }
    if not (np.isfinite([*values.values()]).all() and values["pairs"] > 0):
        raise ValueError(f"its accuracies are {values}, expected finite numbers over some pairs")
    return values


def _exchanged_blocks(
    config: FederateConfig, grid: Grid, setup: ModelSetup, sink: Sink
) -> list[int] | None:
    """The blocks that are exchanged; None for all."""
    blocks = setup.model.layers
    if config.layers == "all":
        return None
    if config.layers == "random":
        return random_blocks(blocks, config.layer_share, config.seed)

    def scores(metrics: Mapping[str, Any]) -> tuple[list[float], int]:
        values, pairs = [float(score) for score in metrics["scores"]], int(metrics[PAIRS])
        if len(values) != blocks or not np.isfinite(values).all() or pairs <= 0:
            raise ValueError(f"its scores are not one finite number for each of {blocks} blocks")
        return values, pairs

    note(sink, "scoring layers")
    answers = ask(grid, MessageType.QUERY, RecordDict(), config, sink, scores)
    if not answers:
        raise ConfigError("no client could score its layers: set layers to all or random")
    values, pairs = zip(*answers.values(), strict=True)
    return chosen_blocks(mean_scores(values, pairs), config.layer_share)

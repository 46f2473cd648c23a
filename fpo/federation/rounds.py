"""The rounds of a federation: what is exchanged, where they go on, the adapter that they end in."""

# pyright: reportMissingImports=false

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fpo.federation.strategies import PAIRS, Checked, Ledger, arrays_of, make_strategy, numpy_of
from fpo.model_setup import ModelSetup
from fpo_core.adapters.folders import save_trained
from fpo_core.config.federated import FederateConfig
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, note
from fpo_core.federated.layers import chosen_blocks, exchanged, mean_scores, random_blocks
from fpo_core.federated.weight_files import Weights
from fpo_core.io.atomic import write_folder


def run_rounds(
    config: FederateConfig,
    grid: Grid,
    setup: ModelSetup,
    start: Weights,
    sink: Sink,
    wrap: Callable[[Checked], Any],
    **options: Any,
) -> tuple[Ledger, Weights, list[int] | None]:
    """Run the rounds that are left, and write the server's adapter.

    `start` are all weights that a client trains, before the first round; `wrap` may put another
    strategy around ours; `options` are Flower's. Returns the rounds, the weights that are
    exchanged, and the blocks that these are of: None for all.
    """
    output = Path(config.output)
    blocks = _exchanged_blocks(config, grid, setup, sink)
    names = exchanged(start, blocks, freeze_a=config.freeze_a and config.fine_tune_type == "lora")
    ledger = Ledger(output, sink)
    weights = ledger.open() or {name: start[name] for name in names}
    rate = config.peak_learning_rate(config.fine_tune_type)
    strategy = make_strategy(config, rate, config.clients)
    strategy.begin(ledger, config.seed)
    result = wrap(strategy).start(
        grid,
        arrays_of(weights),
        config.rounds,
        train_config=ConfigRecord({"local-iters": config.local_iters}),
        **options,
    )
    if len(result.arrays):
        weights = numpy_of(result.arrays)
    final = start | weights
    write_folder(
        output / "adapter",
        lambda folder: save_trained(folder, final, config, config.model, setup.model),
    )
    return ledger, weights, blocks


def _exchanged_blocks(
    config: FederateConfig, grid: Grid, setup: ModelSetup, sink: Sink
) -> list[int] | None:
    """The blocks that are exchanged; None for all."""
    if config.layers == "all":
        return None
    if config.layers == "random":
        return random_blocks(setup.model.layers, config.layer_share, config.seed)
    note(sink, "scoring layers")
    scores, pairs = _scores(grid)
    return chosen_blocks(mean_scores(scores, pairs), config.layer_share)


def _scores(grid: Grid) -> tuple[list[list[float]], list[int]]:
    messages = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
    replies = [m.content["metrics"] for m in grid.send_and_receive(messages) if not m.has_error()]
    values: list[Mapping[str, Any]] = list(replies)
    if not values:
        raise ConfigError("no client could score its layers: set layers to all or random")
    return [list(v["scores"]) for v in values], [int(v[PAIRS]) for v in values]

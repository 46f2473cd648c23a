"""`federate`: a federation of simulated clients on this machine, through Flower's strategies."""

# pyright: reportMissingImports=false

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from fpo.federation.report import Federation
from fpo.run_checks import check_run, writing_output
from fpo.workflow import workflow
from fpo_core.config import TrainConfig
from fpo_core.config.federated import FederateConfig
from fpo_core.errors import BackendError, ConfigError, DataError
from fpo_core.events import Sink, note
from fpo_core.federated.partition import parse_partition, write_partition
from fpo_core.io.atomic import remove_folder, write_json
from fpo_core.io.ownership import check_foreign, check_inputs
from fpo_core.io.regular import read_json_object

if TYPE_CHECKING:
    from fpo.federation.client import Client

_SETTINGS = "fpo_federation.json"


@workflow(FederateConfig)
def federate(config: FederateConfig, sink: Sink) -> Federation:
    """Align one model on the pairs of several simulated clients, which exchange adapters alone.

    Divides a file of pairs, then alternates: some clients take steps on their own pairs from the
    server's weights, the server makes the next weights of theirs. `output` holds every round, so
    `resume` goes on after the last one. A client that fails or sends what it should not is left out
    of its round by name. Simulation protects nothing; docs/federated.md says what a deployment on
    Flower does. Raises BackendError without Flower, ConfigError or DataError for bad settings.
    """
    require_flower()
    with writing_output(config.output):
        return _federate(config, sink)


def require_flower() -> None:
    """Raise BackendError where Flower is not installed."""
    if importlib.util.find_spec("flwr") is None:
        raise BackendError(
            "federate needs Flower, not installed here: pip install 'fpo-mlx[federated]', in an "
            "environment of its own, as Flower pins older versions of typer, rich and protobuf"
        )


def client_settings(config: FederateConfig, data: Path, output: Path) -> TrainConfig:
    """The settings of one client's training: those of a whole run over all rounds."""
    values = {name: getattr(config, name) for name in TrainConfig.names()}
    values |= {
        "data": str(data),
        "output": str(output),
        "iters": config.rounds * config.local_iters,
        "resume": False,
    }
    return TrainConfig(**values)


def _federate(config: FederateConfig, sink: Sink) -> Federation:
    from fpo.federation.apps import LocalGrid, client_app
    from fpo.federation.rounds import run_rounds

    output = Path(config.output)
    check_settings(config, output)
    check_replaced(output / "clients", config, output)
    try:
        clients = _clients(config, output, sink)
    except BaseException:
        # What was refused has not begun: with its files, the next start would look like another's.
        if not (output / _SETTINGS).is_file() and (output / "clients").is_dir():
            remove_folder(output / "clients")
        raise
    write_settings(config, output)
    grid = LocalGrid(
        client_app(
            lambda context: clients[int(context.node_config["partition-id"])],
            lambda context: config.secure_aggregation,
        ),
        {number + 1: {"partition-id": number} for number in range(len(clients))},
    )

    first = clients[0]
    return run_rounds(config, grid, first.run.setup, first.start, sink)


def check_settings(config: FederateConfig, output: Path) -> None:
    """Compare the settings with those of the federation that goes on."""
    path, values = output / _SETTINGS, config.to_mapping()
    check_replaced(output / "adapter", config, output)
    if path.is_file():
        if not config.resume:
            raise ConfigError(
                f"{output} holds a federation: set resume to go on, or name another output"
            )
        before = read_json_object(path, ConfigError)
        for name in values:
            if name not in ("resume", "rounds") and before.get(name) != values[name]:
                raise ConfigError(
                    f"{name} is {values[name]}, but the federation in {output} began with "
                    f"{before.get(name)}: resume with the same settings"
                )


def check_replaced(folder: Path, config: FederateConfig, output: Path) -> None:
    """Raise ConfigError where a folder to replace holds an input, or is not of a federation."""
    inputs = {name: getattr(config, name) for name in ("data", "model", "sae")}
    check_inputs([folder], inputs, folder=output)
    check_foreign([folder], lambda _: (output / _SETTINGS).is_file())


def write_settings(config: FederateConfig, output: Path) -> None:
    """Write the settings, once nothing is left that could be refused: a federation has begun."""
    write_json(output / _SETTINGS, config.to_mapping())


def _clients(config: FederateConfig, output: Path, sink: Sink) -> "list[Client]":
    """The simulated clients, each on its own file of pairs, all on one model."""
    from fpo.federation.client import Client

    folder = output / "clients"
    source = Path(config.data)
    if not source.is_file():
        raise DataError(f"data is {source}, expected one file of pairs to divide among clients")
    alpha = parse_partition(config.partition)
    files = write_partition(source, folder, config.clients, alpha, config.by, config.seed)
    runs = [
        check_run(client_settings(config, data, folder / f"client-{number}"), sink)
        for number, data in enumerate(files)
    ]
    first = runs[0]
    note(sink, f"loading {first.setup.model.name}")
    policy = first.setup.policy(first.config, grad_checkpoint=config.grad_checkpoint)
    start = policy.trained()
    return [Client(run, policy, start, sink) for run in runs]

"""A federation on machines of their own: Flower's ServerApp and ClientApp.

`examples/federated` is the Flower app that `flwr run` sends. Each SuperNode names the settings of
its own client, `--node-config 'settings="client.yaml"'`: model, pairs, output and backend may
differ, what is trained may not. The server's settings come with the run.
"""

# pyright: reportMissingImports=false

from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fpo.federation.apps import client_app
from fpo.federation.client import Client
from fpo.federation.rounds import run_rounds
from fpo.federation.workflow import check_settings, client_settings, write_settings
from fpo.model_setup import ModelSetup
from fpo.run_checks import writing_output
from fpo.sinks import print_progress
from fpo_core.config.federated import FederateConfig
from fpo_core.config.yaml_file import read_yaml
from fpo_core.errors import ConfigError
from fpo_core.events import note

_held = ExitStack()
"""The lock of a client's output, until its process ends."""


def settings_of(values: Any, **absent: Any) -> FederateConfig:
    """The settings in the YAML file that a node's or a run's configuration names.

    `absent` stand for what the file does not say.
    """
    path = values.get("settings")
    if path is None:
        raise ConfigError("settings is not set, expected the path of a YAML file of this machine")
    return FederateConfig.from_mapping(absent | read_yaml(Path(str(path))), str(path))


@cache
def _client(path: Any) -> Client:
    config = settings_of({"settings": path})
    settings = client_settings(config, Path(config.data), Path(config.output))
    _held.enter_context(writing_output(settings.output))
    return Client.of(settings, print_progress)


def make_client_app(mods: Sequence[Any] = ()) -> ClientApp:
    """The client of a SuperNode; `mods` are Flower's, for what training sends, before masks."""
    return client_app(
        lambda context: _client(context.node_config.get("settings")),
        lambda context: settings_of(context.node_config).secure_aggregation,
        mods,
    )


def make_server_app(wrap: Any = lambda strategy: strategy) -> ServerApp:
    """The server; `wrap` may put one of Flower's privacy strategies around ours."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = settings_of(context.run_config, data="of the clients")
        with writing_output(config.output):
            check_settings(config, Path(config.output))
            setup = ModelSetup(config)
            start = setup.policy(config).trained()
            write_settings(config, Path(config.output))
            federation = run_rounds(config, grid, setup, start, print_progress, wrap)
        for line in federation.table().below:
            note(print_progress, line)

    return app

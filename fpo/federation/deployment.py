"""A federation on machines of their own: Flower's ServerApp and ClientApp.

`examples/federated` is the Flower app that `flwr run` sends. Each SuperNode names the settings of
its own client, `--node-config 'settings="client.yaml"'`: model, pairs, output and backend may
differ, what is trained may not. The server's settings come with the run.
"""

# pyright: reportMissingImports=false

from functools import lru_cache
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fpo.federation.apps import client_app
from fpo.federation.client import Client
from fpo.federation.rounds import run_rounds
from fpo.federation.workflow import client_settings
from fpo.model_setup import ModelSetup
from fpo.sinks import print_progress
from fpo_core.config.federated import FederateConfig
from fpo_core.config.yaml_file import read_yaml
from fpo_core.errors import ConfigError


def settings_of(values: Any) -> FederateConfig:
    """The settings in the YAML file that a node's or a run's configuration names."""
    path = values.get("settings")
    if path is None:
        raise ConfigError("settings is not set, expected the path of a YAML file of this machine")
    return FederateConfig.from_mapping(read_yaml(Path(str(path))), str(path))


@lru_cache(maxsize=1)
def _client(path: str) -> Client:
    config = settings_of({"settings": path})
    settings = client_settings(config, Path(config.data), Path(config.output))
    return Client.of(settings, print_progress)


def make_client_app(**options: Any) -> ClientApp:
    """The client of a SuperNode; `options` are Flower's, such as `mods` for privacy."""
    return client_app(lambda context: _client(str(context.node_config.get("settings"))), **options)


def make_server_app(wrap: Any = lambda strategy: strategy) -> ServerApp:
    """The server; `wrap` may put one of Flower's privacy strategies around ours."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        config = settings_of(context.run_config)
        setup = ModelSetup(config)
        policy = setup.policy(config)
        options = {"wrap": wrap, "timeout": config.round_timeout}
        run_rounds(config, grid, setup, policy.trained(), print_progress, **options)

    return app

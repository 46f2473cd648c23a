"""Serving a model through the backend's own server: mlx-lm's or transformers'.

Both speak OpenAI's protocol and load what a request names. They run in a folder in which
`default_model` is the model with its adapter and `base` the bare one, so a request chooses by these
names.
"""

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.model_setup import ModelSetup
from fpo.results import Result
from fpo.workflow import workflow
from fpo_core.adapters.virtual_tokens import VirtualTokens
from fpo_core.adapters.writer import CONFIG_FILE
from fpo_core.config import BackendConfig, ServeConfig
from fpo_core.errors import BackendError, ConfigError
from fpo_core.events import Sink, warn

MODEL, BASE = "default_model", "base"
"""Names of the models in requests."""
_NEEDED = ("fastapi", "uvicorn", "openai", "pydantic")
_PEFT = "adapter_model.safetensors"
_TRANSFORMERS = "from transformers.cli.transformers import main; main()"


@dataclass(frozen=True)
class Server(Result):
    """A server that can be started."""

    backend: str
    url: str
    """Where clients of OpenAI's protocol connect to."""
    models: list[str]
    """Names that a request may give as its model."""
    config: ServeConfig

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The server as a process, which ends with the context."""
        with tempfile.TemporaryDirectory(prefix="fpo-serve-") as folder:
            command = _prepare(Path(folder), self.backend, self.config)
            # Ours to end: a Ctrl-C of the terminal would reach it a second time.
            process = subprocess.Popen(command, cwd=folder, start_new_session=True)
            try:
                yield process
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()

    def to_mapping(self) -> dict[str, Any]:
        """The server as JSON values."""
        return {"backend": self.backend, "url": self.url, "models": self.models}


@workflow(ServeConfig)
def serve(config: ServeConfig, sink: Sink) -> Server:
    """Prepare to serve a model, with its adapter, through the backend's own server.

    `with server.running():` starts mlx_lm.server, or transformers serve. A request names
    `default_model`, the model with its adapter, or `base`, the bare one. Raises BackendError where
    the server's libraries are not installed, ConfigError for what it cannot load.
    """
    setup = ModelSetup(config)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if setup.backend == "torch" and missing:
        raise BackendError(
            f"transformers' server needs {' and '.join(missing)}, not installed here: "
            "pip install 'fpo-mlx[serve]'"
        )
    adapter = setup.start_adapter
    setup.warn_of_base(config.adapter, sink)
    if isinstance(adapter, VirtualTokens):
        raise ConfigError(
            f"{config.adapter} is a {adapter.fine_tune_type} of virtual tokens, which neither "
            "mlx-lm's server nor transformers' loads: use chat or generate"
        )
    opens = adapter is None or (_adapter(config) / _PEFT).is_file()
    if setup.backend == "torch" and not opens:
        raise ConfigError(
            f"{config.adapter} holds no {_PEFT}, which transformers' server needs: convert the "
            "adapter first"
        )
    if config.host not in ("127.0.0.1", "localhost", "::1"):
        warn(sink, f"the server listens at {config.host}, and asks nobody who they are")
    if setup.backend == "mlx" and (ignored := _set_for_computing(config)):
        warn(sink, f"mlx-lm's server has no {' or '.join(ignored)}: ignored")
    models = [MODEL] if adapter is None else [MODEL, BASE]
    host = f"[{config.host}]" if ":" in config.host else config.host
    return Server(setup.backend, f"http://{host}:{config.port}/v1", models, config)


def _set_for_computing(config: ServeConfig) -> list[str]:
    """Settings of how to compute that are not at their defaults."""
    default = BackendConfig()
    names = ("device", "dtype", "seed")
    return [name for name in names if getattr(config, name) != getattr(default, name)]


def _adapter(config: ServeConfig) -> Path:
    return Path(config.adapter or "").expanduser().absolute()


def _prepare(folder: Path, backend: str, config: ServeConfig) -> list[str]:
    """Fill the folder in which the server runs; the command that starts it."""
    model = ModelSetup(config).model.path.absolute()
    (folder / BASE).symlink_to(model)
    place = ["--host", config.host, "--port", str(config.port)]
    trust = ["--trust-remote-code"] if config.trust_remote_code else []
    if backend == "mlx":
        adapter = [] if config.adapter is None else ["--adapter-path", str(_adapter(config))]
        return [sys.executable, "-m", "mlx_lm", "server", "--model", BASE, *adapter, *place, *trust]
    if config.adapter is None:
        (folder / MODEL).symlink_to(model)
    else:
        _with_adapter(folder / MODEL, model, _adapter(config))
    options = {"device": "--device", "dtype": "--dtype", "seed": "--default-seed"}
    chosen = _set_for_computing(config)
    computing = [word for n in chosen for word in (options[n], str(getattr(config, n)))]
    return [sys.executable, "-c", _TRANSFORMERS, "serve", *place, *computing, *trust]


def _with_adapter(folder: Path, model: Path, adapter: Path) -> None:
    """A folder that transformers opens as a model with its adapter inside: links, and one file."""
    folder.mkdir()
    for file in model.iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    settings = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = str(model)
    (folder / CONFIG_FILE).write_text(json.dumps(settings), encoding="utf-8")
    (folder / _PEFT).symlink_to(adapter / _PEFT)

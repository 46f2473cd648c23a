"""`fpo serve`: a model behind OpenAI's protocol, by the backend's own server."""

import contextlib
import signal
import sys
from collections.abc import Iterator

import fpo
from fpo_cli.console.command import command
from fpo_cli.console.ui import Ui
from fpo_core.config import ServeConfig
from fpo_core.errors import BackendError


@command("serve")
def serve(config: ServeConfig, ui: Ui) -> "fpo.Server":
    """Serve a model, with its adapter, to clients of OpenAI's protocol, until Ctrl-C.

    The server is mlx_lm.server or transformers serve. Requests name the model `default_model`; with
    an adapter, `base` is the model without it.
    """
    server = ui.run(fpo.serve, config)
    names = " or ".join(f'"{name}"' for name in server.models)
    ui.note(f"{server.url}, model {names}; Ctrl-C ends")
    with _ended_by_sigterm(), server.running() as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            return server
    raise BackendError(f"the server ended with code {code}: look at what it said above")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, which service managers and containers send, ends the server too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

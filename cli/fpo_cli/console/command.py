"""`command`: a function of settings as a command of the app, its options made from the settings."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import typer

from fpo.launch import launched_for, process_number
from fpo_cli.console import options
from fpo_cli.console.ui import Ui
from fpo_core.config import BackendConfig, NoModelConfig
from fpo_core.config.fields import Settings
from fpo_core.errors import BackendError, SelfTestError
from fpo_core.io.foreign_text import for_json

SettingsT = TypeVar("SettingsT", bound=Settings)
Result = Mapping[str, Any]
Run = Callable[[SettingsT, Ui], Result]
"""A command: shows a result of the settings, and returns it as JSON values."""


@dataclass(frozen=True)
class Registered:
    """A command as docs/cli.md tells of it."""

    path: str
    help: str
    options: list[options.Described]


COMMANDS: list[Registered] = []
"""Every command, in the order in which they were added."""


def command(
    app: typer.Typer,
    name: str,
    settings: type[SettingsT],
    *,
    arguments: tuple[str, ...] = (),
    defaults: Mapping[str, Any] | None = None,
    shared: bool = False,
) -> Callable[[Run[SettingsT]], Run[SettingsT]]:
    """Add a function to `app` under `name`. What it returns is what --json prints, after `command`.

    The function's docstring is the help; `arguments` are settings written by position; `shared`
    work may be done by several processes.
    """

    def decorate(run: Run[SettingsT]) -> Run[SettingsT]:
        group = app.info.name if isinstance(app.info.name, str) else "fpo"
        path = name if group == "fpo" else f"{group} {name}"

        def invoke(**values: Any) -> None:
            context, file, as_json = (values.pop(n) for n in ("context", "config_file", "as_json"))
            typed = {name: values[name] for name in values if _was_typed(context, name)}
            config, ignored = options.read_settings(
                settings, typed, file, defaults or {}, arguments
            )
            ui = Ui(as_json, quiet=process_number() > 0)
            if launched_for() and not shared:
                raise BackendError(
                    f"fpo {name} runs in one process, and was started as one of several: start it "
                    "without torchrun or mlx.launch"
                )
            if ignored:
                ui.note(f"{file}: ignored (not options of this command): {', '.join(ignored)}")
            _run(path, run, config, ui)

        described = options.describe(settings, arguments, defaults)
        parameters = options.signature(described)
        # Typer reads options off the signature, and hints off the annotations.
        invoke.__signature__ = parameters
        invoke.__annotations__ = {p.name: p.annotation for p in parameters.parameters.values()}
        invoke.__doc__ = _unwrapped(run.__doc__ or "")
        COMMANDS.append(Registered(f"fpo {path}", invoke.__doc__, described))
        app.command(name)(invoke)
        return run

    return decorate


def _unwrapped(docstring: str) -> str:
    """A docstring with each paragraph on one line: the help wraps it to the terminal."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _run(path: str, run: Run[SettingsT], config: SettingsT, ui: Ui) -> None:
    from fpo.results import to_json
    from fpo_cli.console.library_noise import quiet

    _check_installed(config)
    quiet()
    real = sys.stdout
    # A library that prints would otherwise break the promise of one JSON object.
    with contextlib.redirect_stdout(sys.stderr) if ui.json else contextlib.nullcontext():
        try:
            values, failed = run(config, ui), None
        except SelfTestError as error:
            values, failed = error.report, error
    if ui.json and not ui.quiet:
        print(for_json(to_json({"command": path} | dict(values))), file=real)
    if failed is not None:
        raise failed


def _check_installed(config: Settings) -> None:
    """Refuse a backend that is not there, even where the command would not need it."""
    # These commands take the option only so that one YAML file serves all.
    if isinstance(config, NoModelConfig) and config.backend != "auto":
        from fpo.backends import select_backend

        select_backend(BackendConfig(backend=config.backend))

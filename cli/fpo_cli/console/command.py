"""`command`: a function of settings as a command of the app, its options made from the settings."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import typer
from typer.core import TyperCommand

from fpo.launch import launched_for, process_number
from fpo_cli.console import options
from fpo_cli.console.ui import Ui
from fpo_core.config import BackendConfig, NoModelConfig
from fpo_core.config.fields import Settings
from fpo_core.errors import BackendError, SelfTestError
from fpo_core.io.foreign_text import for_json

if TYPE_CHECKING:
    from fpo.results import Result

SettingsT = TypeVar("SettingsT", bound=Settings)
Run = Callable[[SettingsT, Ui], "Result"]
"""Shows the result of settings, and returns it. The docstring is the help."""
Defaults = Mapping[str, Any]


class _Listed(TyperCommand):
    """A command among others: its options are made when it is chosen, not to list its name."""

    def __init__(self, *, chosen: Callable[[], Any], **listed: Any) -> None:
        super().__init__(**listed)
        self.chosen = chosen

    def make_context(self, *args: Any, **extra: Any) -> Any:
        return self.chosen().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        return ctx.command.invoke(ctx)


@dataclass(frozen=True)
class Command(Generic[SettingsT]):
    """A function of settings under the words that follow `fpo`."""

    name: str
    run: Run[SettingsT]
    arguments: tuple[str, ...] = ()
    """Settings written by position."""
    defaults: Callable[[], Defaults] = dict
    """What stands in for those of the settings."""
    shared: bool = False
    """Whether several processes may do its work."""

    @property
    def path(self) -> str:
        """What is typed to run it."""
        return f"fpo {self.name}"

    @property
    def settings(self) -> type[SettingsT]:
        """The kind of settings that it takes."""
        return self.run.__annotations__["config"]

    @property
    def help(self) -> str:
        """The function's docstring with each paragraph on one line: the terminal wraps it."""
        paragraphs = inspect.cleandoc(self.run.__doc__ or "").split("\n\n")
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

    @property
    def options(self) -> list[options.Described]:
        """Its options as help and docs/cli.md tell of them."""
        return options.describe(self.settings, self.arguments, self.defaults())

    def add_to(self, app: typer.Typer) -> None:
        """Register it under the last word of its name."""
        listed = functools.partial(_Listed, chosen=self._with_options)
        app.command(self._word, help=self.help, cls=listed)(lambda: None)  # pyright: ignore[reportArgumentType]
        COMMANDS.append(self)

    @property
    def _word(self) -> str:
        return self.name.split()[-1]

    def _with_options(self) -> Any:
        """The command as Typer makes it of all options."""

        def invoke(**values: Any) -> None:
            context, file, as_json = (values.pop(n) for n in ("context", "config_file", "as_json"))
            typed = {name: values[name] for name in values if _was_typed(context, name)}
            config, ignored = options.read_settings(
                self.settings, typed, file, self.defaults(), self.arguments
            )
            ui = Ui(as_json, quiet=process_number() > 0)
            if launched_for() and not self.shared:
                raise BackendError(
                    f"{self.path} runs in one process, and was started as one of several: "
                    "start it without torchrun or mlx.launch"
                )
            if ignored:
                ui.note(f"{file}: ignored (not options of this command): {', '.join(ignored)}")
            self._show(config, ui)

        parameters = options.signature(self.options)
        # Typer reads options off the signature, and hints off the annotations.
        invoke.__signature__ = parameters
        invoke.__annotations__ = {p.name: p.annotation for p in parameters.parameters.values()}
        invoke.__doc__ = self.help
        alone = typer.Typer(add_completion=False)
        alone.command(self._word)(invoke)
        return typer.main.get_command(alone)

    def _show(self, config: SettingsT, ui: Ui) -> None:
        from fpo.results import to_json
        from fpo_cli.console.library_noise import quiet

        _check_installed(config)
        quiet()
        real = sys.stdout
        # A library that prints would otherwise break the promise of one JSON object.
        with contextlib.redirect_stdout(sys.stderr) if ui.json else contextlib.nullcontext():
            try:
                values, failed = self.run(config, ui).to_mapping(), None
            except SelfTestError as error:
                values, failed = error.report, error
        if ui.json and not ui.quiet:
            print(for_json(to_json({"command": self.name} | dict(values))), file=real)
        if failed is not None:
            raise failed


COMMANDS: list[Command[Any]] = []
"""Every command, in the order in which they were added."""


def command(name: str, **options: Any) -> Callable[[Run[SettingsT]], Command[SettingsT]]:
    """Make a function of `config` and a `Ui` a `Command`, whose other fields are `options`."""
    return lambda run: Command(name, run, **options)


def _was_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_installed(config: Settings) -> None:
    """Refuse a backend that is not there, even where the command would not need it."""
    # These commands take the option only so that one YAML file serves all.
    if isinstance(config, NoModelConfig) and config.backend != "auto":
        from fpo.backends import select_backend

        select_backend(BackendConfig(backend=config.backend))

"""The command line `fpo`: its commands, and the one place where errors become a line of text."""

import sys
from typing import Annotated, NoReturn

import typer

from fpo.launch import process_number
from fpo_cli.commands.chat import chat
from fpo_cli.commands.compare import compare
from fpo_cli.commands.convert_adapter import convert_adapter
from fpo_cli.commands.convert_gguf import convert_gguf
from fpo_cli.commands.convert_sae import convert_sae
from fpo_cli.commands.data_augment import data_augment
from fpo_cli.commands.data_inspect import data_inspect
from fpo_cli.commands.doctor import doctor
from fpo_cli.commands.evaluate import evaluate
from fpo_cli.commands.federate import federate
from fpo_cli.commands.fuse import fuse
from fpo_cli.commands.generate import generate
from fpo_cli.commands.judge import judge
from fpo_cli.commands.quickstart import quickstart
from fpo_cli.commands.reference import reference
from fpo_cli.commands.report import report
from fpo_cli.commands.sae_check import sae_check
from fpo_cli.commands.sae_features import sae_features
from fpo_cli.commands.sae_info import sae_info
from fpo_cli.commands.sae_list import sae_list
from fpo_cli.commands.sae_train import sae_train
from fpo_cli.commands.sample import sample
from fpo_cli.commands.serve import serve
from fpo_cli.commands.train import train
from fpo_cli.commands.value_train import value_train
from fpo_cli.console.options import normalised
from fpo_core import __version__
from fpo_core.config.spellings import advice
from fpo_core.errors import FpoError
from fpo_core.io.foreign_text import one_line

app = typer.Typer(
    name="fpo",
    help="Feature-level constrained Preference Optimization, on MLX and PyTorch.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": normalised,
    },
)


def _version(asked: bool) -> None:
    if asked:
        print(f"fpo-mlx {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


def _group(name: str, help: str) -> typer.Typer:
    group = typer.Typer(name=name, help=help, no_args_is_help=True)
    app.add_typer(group)
    return group


COMMANDS = (
    (app, (quickstart,)),
    (
        _group("convert", "Convert what others published."),
        (convert_sae, convert_adapter, convert_gguf),
    ),
    (
        _group("sae", "Find, train and look at autoencoders."),
        (sae_list, sae_train, sae_check, sae_features, sae_info),
    ),
    (app, (reference, train, federate, report, compare, evaluate, fuse)),
    (_group("value", "Train values that guide samples."), (value_train,)),
    (app, (generate, sample, chat, serve, judge)),
    (_group("data", "Look at and augment preference data."), (data_inspect, data_augment)),
    (app, (doctor,)),
)
"""Every command, in the order of the documentation. A new one is a file and its function here."""

for group, commands in COMMANDS:
    for command in commands:
        command.add_to(group)


def main(app: typer.Typer = app, name: str = "fpo") -> NoReturn:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    try:
        code = app(prog_name=name, standalone_mode=False)
    except FpoError as error:
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except OSError as error:
        _fail(_of_system(error))
    except Exception as error:
        # Typer brings its own copy of click, whose error classes have no public name.
        if not hasattr(error, "format_message"):  # typer's own errors of usage have it
            raise
        if not str(error):  # no command was given, and the help was shown
            sys.exit(2)
        _fail(_of_usage(error))
    if code == 130:
        _fail("interrupted", 130)
    sys.exit(code or 0)


def _fail(message: str, code: int = 2) -> NoReturn:
    who = f"fpo, process {process_number()}" if process_number() else "fpo"
    print(f"{who}: " + one_line(message), file=sys.stderr)
    sys.exit(code)


def _of_usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    where = f" (see {context.command_path} --help)" if context else ""
    option = str(getattr(error, "option_name", "")).lstrip("-")
    instead = f": {advice(option)}" if advice(option) else ""
    message = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    return message.rstrip(".") + instead + where


def _of_system(error: OSError) -> str:
    if error.filename is None:
        raise error
    return f"{error.filename}: {error.strerror}: check the path, its permissions and free space"


if __name__ == "__main__":
    main()

"""Documentation from the program itself: `python docs/generate.py cli`, `api` or `stub`.

`cli` is docs/cli.md, `api` docs/api.md, and `stub` fpo/__init__.pyi, whose signatures list every
setting for type checkers and editors. `make docs` writes all three.
"""

import itertools
import sys
import typing
from typing import Any

import api_page

from fpo_cli import main
from fpo_cli.console.command import COMMANDS, Command
from fpo_cli.console.options import Described

_HEAD = """# Command line

Written by `make docs` from the settings in `fpo_core/config/`; a test
keeps it up to date.

Every command takes `-c FILE`, a YAML file whose keys are the option names in snake case
(`learning_rate: 1e-4`; dashes will do). A value on the command line wins over the file, the file
wins over the default. A key that no command knows is refused; keys of other commands are ignored
with a remark, so that one file can serve `reference`, `train` and `eval`.

With `--json`, stdout is one JSON object and nothing else. Text on the way goes to stderr, always.
A mistake of the user's is one line on stderr and exit code 2; an interruption is exit code 130.
"""


def render() -> str:
    """The whole page."""
    assert main.app.registered_commands, "the commands register where main is imported"
    return "\n\n".join([_HEAD.strip(), *map(_section, COMMANDS)]) + "\n"


def _section(command: Command[Any]) -> str:
    arguments = [option for option in command.options if option.positional]
    usage = " ".join([command.path, *(a.name.upper() for a in arguments), "[OPTIONS]"])
    parts = [f"## {command.path}", command.help, f"```\n{usage}\n```"]
    parts += [f"`{argument.name.upper()}`: {argument.help}" for argument in arguments]
    options = [option for option in command.options if not option.positional]
    for title, rows in itertools.groupby(options, key=lambda option: option.panel):
        parts.append("\n".join([f"| {title} | default | |", "|---|---|---|", *map(_row, rows)]))
    return "\n\n".join(parts)


def _row(option: Described) -> str:
    names = ", ".join(f"`{name}`" for part in option.spellings for name in part.split("/"))
    default = "" if option.default is None else f"`{_shown(option.default)}`"
    is_choice = typing.get_origin(option.hint) is typing.Literal
    choices = ", ".join(f"`{choice}`" for choice in typing.get_args(option.hint))
    return f"| {names} | {default} | {option.help}{f' One of {choices}.' if is_choice else ''} |"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print({"cli": render, "api": api_page.page, "stub": api_page.stub}[sys.argv[1]](), end="")

"""Options of a command from its settings class, and settings from command line and YAML."""

import functools
import inspect
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from fpo_core.config.fields import Settings, SettingsT
from fpo_core.config.spellings import ALIASES, SPELLINGS
from fpo_core.config.yaml_file import read_yaml
from fpo_core.errors import ConfigError

_SHORT = {"prompt": "-p"}
_EXCLUSIVE = (("epochs", "iters"), ("iters", "epochs"))


@dataclass(frozen=True)
class Described:
    """A setting as an option, or as a positional argument."""

    name: str
    hint: Any
    """The type that is parsed: without None, and a list as one comma-separated text, or behind the
    command as several."""
    spellings: tuple[str, ...]
    default: Any
    help: str
    panel: str
    positional: bool

    def parameter(self) -> inspect.Parameter:
        """What Typer reads. It may stay away, since a YAML file may hold it."""
        if self.positional:
            metavar = self.name.upper()
            info = typer.Argument(metavar=metavar, help=_escaped(self.help), show_default=False)
        else:
            text = _escaped(self.help)
            info = typer.Option(*self.spellings, help=text, rich_help_panel=self.panel)
        # Optional for Typer even where required: the YAML file may have it.
        return _keyword(self.name, Annotated[self.hint | None, info], self.default)


def describe(
    kind: type[Settings], arguments: Iterable[str] = (), defaults: Mapping[str, Any] | None = None
) -> list[Described]:
    """The options of a settings class: the command's own, then group by group as it names them.

    Settings named in `arguments` are positional; `defaults` stand in for the class's own.
    """
    hints = typing.get_type_hints(kind)
    listed = sorted(fields(kind), key=lambda field: kind.__mro__.index(_group(kind, field.name)))
    return [
        _described(kind, field, hints[field.name], field.name in arguments, defaults or {})
        for field in listed
    ]


def _described(
    kind: type[Settings],
    field: Field[Any],
    hint: Any,
    positional: bool,
    defaults: Mapping[str, Any],
) -> Described:
    default = defaults.get(field.name, field.default)
    needed = default is MISSING
    several = positional and typing.get_origin(hint) is tuple
    repeated = field.metadata["repeatable"]
    hint = list[str] if several or repeated else _plain(hint)
    return Described(
        name=field.name,
        hint=hint,
        spellings=_spellings(field.name, hint),
        default=None if needed else default,
        help=field.metadata["help"] + (" Required." if needed else ""),
        panel=_panel(_group(kind, field.name)),
        positional=positional,
    )


def normalised(option: str) -> str:
    """An option without its dashes, as this program spells it: `lr`, `learning_rate`."""
    name = option.replace("-", "_")
    return SPELLINGS.get(name, option if name not in _known_anywhere() else name).replace("_", "-")


def signature(described: Iterable[Described]) -> inspect.Signature:
    """What Typer reads of a command: its options, then `--config` and `--json`."""
    settings = [option.parameter() for option in described]
    return inspect.Signature([_keyword("context", typer.Context), *settings, *_common()])


def _escaped(text: str) -> str:
    """Square brackets that rich would take for markup, made plain."""
    return re.sub(r"(\[[a-z#/@])", r"\\\1", text)


def _common() -> list[inspect.Parameter]:
    config = typer.Option("--config", "-c", metavar="FILE", help="YAML file of these options.")
    json = typer.Option("--json", help="Print one JSON object on stdout; all else goes to stderr.")
    return [
        _keyword("config_file", Annotated[Path | None, config], None),
        _keyword("as_json", Annotated[bool, json], False),
    ]


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> Any:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _spellings(name: str, hint: Any) -> tuple[str, ...]:
    option = "--" + name.replace("_", "-")
    if hint is bool:
        option += f"/--no-{name.replace('_', '-')}"
    alias = f"--{ALIASES[name].replace('_', '-')}" if name in ALIASES else _SHORT.get(name)
    return (option,) if alias is None else (option, alias)


def _plain(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    return str if typing.get_origin(hint) is tuple else hint


def _group(kind: type[Settings], name: str) -> type[Settings]:
    """The class that declares a setting."""
    return next(group for group in kind.__mro__ if name in vars(group).get("__annotations__", {}))


def _panel(group: type[Settings]) -> str:
    """The title over a group's options in the help: its docstring, or plain for a command's own."""
    words = (group.__doc__ or "").strip().split("\n")[0].rstrip(".")
    return "Options" if words.startswith("Settings of") else words


def read_settings(
    kind: type[SettingsT],
    typed: Mapping[str, Any],
    file: Path | None,
    defaults: Mapping[str, Any],
    arguments: Iterable[str] = (),
) -> tuple[SettingsT, list[str]]:
    """Settings from what was typed on the command line, over a YAML file, over defaults.

    Returns also the file's keys that other commands know and this one does not.
    """
    known = set(kind.names())
    read = {} if file is None else read_yaml(file)
    ignored = [key for key in read if key not in known and key in _known_anywhere()]
    used = {key: value for key, value in read.items() if key not in ignored}
    # What is typed replaces what the file says of the same thing under another name.
    for winner, loser in _EXCLUSIVE:
        if winner in typed and loser not in typed:
            used.pop(loser, None)
    over = used | {name: _joined(name, value, arguments) for name, value in typed.items()}
    below = {key: value for key, value in defaults.items() if key not in over}
    values = kind.fitting(below, over) | over
    source = "a -c YAML file" if file is None else str(file)
    _check_required(kind, values, tuple(arguments), source)
    return kind.from_mapping(values, source), ignored


def _joined(name: str, value: Any, arguments: Iterable[str]) -> Any:
    """An option that was repeated as one comma-separated text."""
    return ",".join(value) if isinstance(value, list) and name not in arguments else value


def _check_required(
    kind: type[Settings], values: Mapping[str, Any], arguments: tuple[str, ...], source: str
) -> None:
    """Raise ConfigError for a setting without default that has no value, by its option."""
    present = {str(key).replace("-", "_") for key, value in values.items() if value is not None}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    for name in arguments:
        if name in needed - present:
            raise ConfigError(
                f"{name.upper()} is missing: write it behind the command, or {name} in {source}"
            )
    if not present <= set(kind.names()):
        return  # an unknown key is perhaps the missing one misspelt: the settings report it
    for name in (field.name for field in fields(kind) if field.name in needed - present):
        option = "--" + name.replace("_", "-")
        raise ConfigError(f"{name} is not set: give {option} or put it in {source}")


@functools.cache
def _known_anywhere() -> set[str]:
    kinds = [Settings]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {name for kind in kinds for name in kind.names()}

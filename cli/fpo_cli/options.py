"""Options of a command from its settings class, and settings from command line and YAML."""

import inspect
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from fpo_core.errors import ConfigError
from fpo_core.settings import Settings, SettingsT

ALIASES = {"max_seq_length": ("--max-length",), "temperature": ("--temp",), "prompt": ("-p",)}
"""Other spellings of an option."""
_EXCLUSIVE = (("epochs", "iters"), ("iters", "epochs"))
_CONTEXT, _FILE, _JSON = "context", "config_file", "as_json"


def signature(
    kind: type[Settings], arguments: Iterable[str] = (), defaults: Mapping[str, Any] | None = None
) -> inspect.Signature:
    """What Typer reads: an option per setting, those named in `arguments` as positional ones.

    `defaults` stand in for the class's own in the help and where nothing is given. `--config` and
    `--json` come last. Every option may stay away, since a YAML file may hold it.
    """
    hints = typing.get_type_hints(kind)
    shown = {} if defaults is None else defaults
    listed = sorted(fields(kind), key=lambda field: _group_position(kind, field.name))
    settings = [
        _parameter(kind, field, hints[field.name], field.name in arguments, shown)
        for field in listed
    ]
    return inspect.Signature([_keyword(_CONTEXT, typer.Context), *settings, *_common()])


def _parameter(
    kind: type[Settings],
    field: Field[Any],
    hint: Any,
    positional: bool,
    defaults: Mapping[str, Any],
) -> inspect.Parameter:
    needed = field.default is MISSING and field.name not in defaults
    help_text = field.metadata["help"] + (" Required." if needed else "")
    default = None if needed else defaults.get(field.name, field.default)
    if positional:
        metavar = field.name.upper()
        info = typer.Argument(metavar=metavar, help=help_text, show_default=False)
    else:
        info = typer.Option(
            *_spellings(field.name, _plain(hint)),
            help=help_text,
            rich_help_panel=panel(_group(kind, field.name)),
        )
    return _keyword(field.name, Annotated[_plain(hint) | None, info], default)


def _common() -> list[inspect.Parameter]:
    config = typer.Option("--config", "-c", metavar="FILE", help="YAML file of these options.")
    json = typer.Option("--json", help="Print one JSON object on stdout; all else goes to stderr.")
    return [
        _keyword(_FILE, Annotated[Path | None, config], None),
        _keyword(_JSON, Annotated[bool, json], False),
    ]


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> Any:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _spellings(name: str, hint: Any) -> list[str]:
    option = "--" + name.replace("_", "-")
    if hint is bool:
        option += f"/--no-{name.replace('_', '-')}"
    return [option, *ALIASES.get(name, ())]


def _plain(hint: Any) -> Any:
    """The type that Typer parses: without None, and a list as one comma-separated text."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    return str if typing.get_origin(hint) is tuple else hint


def _group(kind: type[Settings], name: str) -> type[Settings]:
    """The class that declares a setting."""
    return next(group for group in kind.__mro__ if name in vars(group).get("__annotations__", {}))


def _group_position(kind: type[Settings], name: str) -> int:
    """A command's own options first, then its groups in the order that it names them."""
    return kind.__mro__.index(_group(kind, name))


def panel(group: type[Settings]) -> str:
    """The title over a group's options in the help: its docstring, or plain for a command's own."""
    words = (group.__doc__ or "").strip().split("\n")[0].rstrip(".")
    return "Options" if words.startswith("Settings of") else words


def read_settings(
    kind: type[SettingsT], given: Mapping[str, Any], file: Path | None, defaults: Mapping[str, Any]
) -> tuple[SettingsT, list[str]]:
    """Settings from what was given on the command line, over a YAML file, over defaults.

    Returns also the file's keys that other commands know and this one does not.
    """
    known = set(kind.names())
    read = {} if file is None else read_yaml(file)
    ignored = [key for key in read if key not in known and key in _known_anywhere()]
    kept = {key: value for key, value in read.items() if key not in ignored}
    for winner, loser in _EXCLUSIVE:
        if winner in given and loser not in given:
            kept.pop(loser, None)
    below = {key: value for key, value in defaults.items() if key not in (*kept, *given)}
    source = "a -c YAML file" if file is None else str(file)
    return kind.from_mapping(below | kept | dict(given), source), ignored


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, in snake case. ConfigError for one that cannot be read."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"the configuration {path} cannot be read: {reason}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the configuration {path} is not YAML: {reason}") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"the configuration {path} holds no keys, expected lines like `beta: 1`")
    renamed = {alias[2:].replace("-", "_"): name for name, (alias, *_) in ALIASES.items()}
    names = {key: str(key).replace("-", "_") for key in values or {}}
    return {renamed.get(names[key], names[key]): value for key, value in (values or {}).items()}


def _known_anywhere() -> set[str]:
    kinds = [Settings]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {name for kind in kinds for name in kind.names()}

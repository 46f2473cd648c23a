"""How a settings dataclass describes and checks itself: the machinery under `fpo_core.config`."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass
from typing import Any, Literal, Self, Union

from fpo_core.config.spellings import advice
from fpo_core.errors import ConfigError


def setting(
    default: Any = MISSING,
    *,
    help: str,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    repeatable: bool = False,
) -> Any:
    """A dataclass field with its help text and bounds; `above` is exclusive, the others not.

    A `repeatable` list may be typed with an option for each item, too.
    """
    bounds = {"above": above, "least": least, "most": most}
    metadata = {"help": help, "repeatable": repeatable, **bounds}
    return dataclasses.field(default=default, metadata=metadata)


def like(
    group: "type[Settings]", name: str, *, default: Any = None, help: str | None = None
) -> Any:
    """The same field as `name` of another group, perhaps with a default or words of its own."""
    field = group.__dataclass_fields__[name]
    words = {} if help is None else {"help": help}
    chosen = field.default if default is None else default
    return dataclasses.field(default=chosen, metadata={**field.metadata, **words})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A group of settings; combine groups by inheritance. Constructing one checks every field."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _coerce(field.name, getattr(self, field.name), hints[field.name])
            _check_bounds(field, value)
            object.__setattr__(self, field.name, value)
        # Every inherited group checks its fields, whether or not a subclass has checks too.
        for kind in type(self).__mro__:
            if "check" in vars(kind):
                vars(kind)["check"](self)

    def check(self) -> None:
        """Raise ConfigError where fields of this group contradict each other."""

    @classmethod
    def fitting(cls, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Defaults in place of the class's, less those without a meaning beside `values`."""
        del values
        return dict(defaults)

    @classmethod
    def completed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Values, with what follows from them for settings that have none."""
        return values

    @classmethod
    def names(cls) -> list[str]:
        """The keys that this group takes, in order."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str = "the configuration") -> Self:
        """Build from a mapping such as a parsed YAML file, whose dashes may stand for underscores.

        Raises ConfigError for an unknown or missing key, naming `source` and the nearest known key.
        """
        known = cls.names()
        fitted: dict[str, Any] = {}
        for key, value in values.items():
            name = str(key).replace("-", "_")
            if name not in known:
                raise ConfigError(f"{source} has an unknown key {key!r}; {_suggest(name, known)}")
            fitted[name] = value
        fitted = cls.completed(fitted)
        for field in dataclasses.fields(cls):
            if field.default is MISSING and fitted.get(field.name) is None:
                raise ConfigError(f"{field.name} is not set, expected a value for it in {source}")
        return cls(**fitted)

    def to_mapping(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((name, getattr(self, name)) for name in self.names())
        }

    def only(self, group: "type[SettingsT]") -> "SettingsT":
        """The part of these settings that belongs to `group`; what they lack is at its default."""
        names = set(self.names()) & set(group.names())
        return group(**{name: getattr(self, name) for name in names})


SettingsT = typing.TypeVar("SettingsT", bound=Settings)


def _suggest(name: str, known: list[str]) -> str:
    if other := advice(name):
        return other
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"the known keys are {', '.join(known)}"


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """`value` as the field's type, or ConfigError. YAML reads 5e-7 as text: it may be a number."""
    if hint is str and value == "":  # as of a shell's variable that is not set; all are needed
        raise ConfigError(f"{name} is empty, expected text")
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    if value is None and type(None) in options:
        return None
    # The first type that fits wins, so a union states its preference by its order.
    for option in options:
        matched, result = _match(value, option)
        if matched:
            return result
    raise ConfigError(f"{name} is {value!r}, expected {_describe(hint)}")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def _match(value: Any, option: Any) -> tuple[bool, Any]:
    if typing.get_origin(option) is Literal:
        return value in typing.get_args(option), value
    if typing.get_origin(option) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        is_list = isinstance(items, list | tuple) and all(isinstance(i, str) for i in items)
        return is_list, tuple(items) if is_list else None
    # A bool is an int in Python: `true` must not pass for 1, nor 1 for `true`.
    if option is bool or isinstance(value, bool):
        return option is bool and isinstance(value, bool), value
    if option in (int, float):
        return _match_number(value, option)
    return option is str and isinstance(value, str), value


def _match_number(value: Any, option: type) -> tuple[bool, Any]:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return False, None
    if not math.isfinite(number) or (option is int and number != int(number)):
        return False, None
    return True, option(number)


def _describe(hint: Any) -> str:
    if _is_union(hint):
        return " or ".join(_describe(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return "a list of texts"
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(hint, "nothing")


def _check_bounds(field: Field[Any], value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    above, least, most = (field.metadata.get(key) for key in ("above", "least", "most"))
    if above is not None and value <= above:
        raise ConfigError(f"{field.name} is {value}, expected more than {above}")
    if least is not None and value < least:
        raise ConfigError(f"{field.name} is {value}, expected at least {least}")
    if most is not None and value > most:
        raise ConfigError(f"{field.name} is {value}, expected at most {most}")

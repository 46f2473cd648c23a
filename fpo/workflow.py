"""How every function of `fpo` is called: with a config object, keyword settings, or both."""

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

from fpo.sinks import warnings_only
from fpo_core.config.fields import Settings, SettingsT
from fpo_core.config.spellings import canonical
from fpo_core.events import Sink

ResultT = TypeVar("ResultT")
Stop = Callable[[], int | None]
"""Asked between two steps: None to go on, or the number of the signal that asks for an end."""


def workflow(
    kind: type[SettingsT], defaults: Callable[[], Mapping[str, Any]] = dict
) -> Callable[[Callable[..., ResultT]], Callable[..., ResultT]]:
    """Turn a function of a `kind` of settings and a sink into one of the Python API.

    The new function takes the config object, its settings by keyword, or both, the keywords over
    the object; `sink=None` becomes `warnings_only`. Every workflow takes a sink, those that have
    nothing to report too. `defaults` stand in for those of the kind where no object is given. Its
    `__signature__` lists every setting, for help and completion in notebooks.
    """

    def decorate(run: Callable[..., ResultT]) -> Callable[..., ResultT]:
        parameters = list(inspect.signature(run).parameters.values())[1:]
        names = [parameter.name for parameter in parameters]

        @functools.wraps(run)
        def call(
            config: SettingsT | None = None, *, sink: Sink | None = None, **values: Any
        ) -> ResultT:
            options = {name: values.pop(name) for name in names if name in values}
            if "sink" in names:
                options["sink"] = warnings_only if sink is None else sink
            return run(configured(kind, config, values, defaults), **options)

        returned = inspect.signature(run).return_annotation
        call.__signature__ = _signature(kind, parameters, returned, defaults())  # pyright: ignore[reportAttributeAccessIssue]
        call.settings = kind  # pyright: ignore[reportAttributeAccessIssue]
        return call

    return decorate


def configured(
    kind: type[SettingsT],
    config: SettingsT | None,
    values: Mapping[str, Any],
    defaults: Callable[[], Mapping[str, Any]] = dict,
) -> SettingsT:
    """Settings of a `kind` from an object and keywords over it, checked; paths may be `Path`s.

    Raises ConfigError as the settings do.
    """
    if config is not None and not values:
        return config
    over = {_name(kind, name): _text(value) for name, value in values.items()}
    below = kind.fitting(defaults(), over) if config is None else config.to_mapping()
    return kind.from_mapping(below | over, "the call")


def _name(kind: type[Settings], name: str) -> str:
    if name in kind.names():
        return name
    return "data" if name == "pairs" else canonical(name)


def _text(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_text(item) for item in value] if isinstance(value, list | tuple) else value


def _signature(
    kind: type[Settings],
    parameters: list[inspect.Parameter],
    returned: Any,
    defaults: Mapping[str, Any],
) -> inspect.Signature:
    hints = get_type_hints(kind)
    keyword = inspect.Parameter.KEYWORD_ONLY
    config = inspect.Parameter(
        "config", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=kind | None
    )
    sink = inspect.Parameter("sink", keyword, default=None, annotation=Sink | None)
    options = [sink, *(p.replace(kind=keyword) for p in parameters if p.name != "sink")]
    # A required setting may come with the config object, so no keyword is required by itself.
    settings = [
        inspect.Parameter(
            field.name,
            keyword,
            default=defaults.get(field.name, ... if field.default is MISSING else field.default),
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]
    return inspect.Signature([config, *options, *settings], return_annotation=returned)

"""Which format a source is in, and where its files are."""

import dataclasses
from pathlib import Path
from typing import Any

from fpo_convert import releases
from fpo_convert.formats.registry import FORMATS
from fpo_convert.hub import Address, download, parse_address
from fpo_convert.releases import Release
from fpo_convert.source_formula import Options, Source
from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook

_PICKLES = (".pkl", ".pkl.gz", ".pickle")


def read_source(source: str, format: str | None, options: Options) -> tuple[Source, dict[str, Any]]:
    """Find, recognise and read a source; the second value says where it came from.

    Raises SaeError where nothing is there, or in no known format, or where an option that states a
    number has no place in it.
    """
    read, origin = _found(source, format, options)
    _refuse_unused(read, options)
    return read, origin


def _refuse_unused(source: Source, options: Options) -> None:
    corrects = source.threshold_factor != 1.0
    unused = {
        "norm_factor": options.norm_factor not in (None, source.scale) and not corrects,
        "k": options.k not in (None, source.k),
        "centre": options.centre not in (None, source.centred),
    }
    for name in (name for name, applies in unused.items() if applies):
        raise SaeError(
            f"{name} is set, and {source.where} is of format {source.format} and architecture "
            f"{source.architecture} in which it changes nothing: leave it out"
        )


def _found(source: str, format: str | None, options: Options) -> tuple[Source, dict[str, Any]]:
    if format is not None and format not in FORMATS:
        raise SaeError(
            f"format {format!r} is unknown, expected one of {', '.join(FORMATS)}: correct it"
        )
    path = Path(source).expanduser()
    if path.exists():
        options = dataclasses.replace(options, location=str(path.resolve()))
        return _read(path, format, options), {"location": path.name}
    if (release := releases.by_name(source)) is not None:
        return _from_hub(parse_address(release.address), format, options, {"release": source})
    if _looks_local(source) or releases.is_release(source.partition("/")[0]):
        raise SaeError(
            f"{source} is not there{_meant(source)}: give a folder, file or name that is"
        )
    try:
        return _from_hub(parse_address(source), format, options, {})
    except SaeError as error:
        if not (meant := _meant(source)):
            raise
        raise SaeError(f"{error}{meant}") from None


def _from_hub(
    address: Address, format: str | None, options: Options, origin: dict[str, Any]
) -> tuple[Source, dict[str, Any]]:
    """What is at a place on the hub, with what the table of releases knows of that place."""
    release = releases.at_address(address.repo, address.path)
    format = format or (_format_of(release) if release else None)
    local, revision = download(address)
    location = f"{address.repo}/{address.path}".rstrip("/")
    options = dataclasses.replace(options, location=location)
    options = _with_release(options, release) if release else options
    return _read(local, format, options), origin | {"location": location, "revision": revision}


def _with_release(options: Options, release: Release) -> Options:
    factor = options.norm_factor if options.norm_factor is not None else release.norm_factor
    return dataclasses.replace(
        options,
        norm_factor=factor,
        overrides=release.overrides,
        neuronpedia_id=release.neuronpedia_id,
    )


def _format_of(release: Release) -> str:
    """The format that the table says. Raises SaeError where there is no reader for it."""
    for name, known in FORMATS.items():
        if release.loader in known.loaders:
            return name
    raise SaeError(
        f"{release.name} is in the format {release.loader}, for which there is no reader (temporal "
        "ones encode whole sequences), expected "
        f"one of {', '.join(FORMATS)}: use another release"
    )


def _meant(source: str) -> str:
    names = releases.suggestions(source)
    return f" (did you mean {' or '.join(names)}?)" if names else ""


def _read(path: Path, format: str | None, options: Options) -> Source:
    """The source as its format reads it, overridden by what the options state."""
    name = format or _detect(path)
    source, tokens = FORMATS[name].read(path, options), options.untrained_tokens
    return dataclasses.replace(
        source,
        format=name,
        hook=Hook.parse(options.hook) if options.hook else source.hook,
        model_name=options.model_name or source.model_name,
        neuronpedia_id=options.neuronpedia_id or source.neuronpedia_id,
        untrained_tokens=source.untrained_tokens if tokens is None else tuple(tokens),
    )


def _detect(path: Path) -> str:
    if path.name.endswith(_PICKLES):
        raise SaeError(
            f"{path} is a pickle, which can run code and is never loaded: have it saved as "
            "safetensors with the library that made it"
        )
    for name, known in FORMATS.items():
        if known.detect(path):
            return name
    raise SaeError(
        f"{path} is in no format that is recognised, expected one of {', '.join(FORMATS)}: give "
        "the folder that holds both configuration and weights, or state the format"
    )


def _looks_local(source: str) -> bool:
    """Whether a name that does not exist looks like a path, so that the hub need not be asked."""
    plain = ":" not in source and "@" not in source
    return source.startswith((".", "/", "~")) or (
        plain and (source.count("/") == 0 or source.endswith((*_PICKLES, ".safetensors", ".json")))
    )

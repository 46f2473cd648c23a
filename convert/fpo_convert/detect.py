"""Which format a source is in, and where its files are."""

from pathlib import Path
from typing import Any

from fpo_convert.formats import sae_lens
from fpo_convert.source import Options, Source
from fpo_core.errors import SaeError

FORMATS = {"sae-lens": sae_lens}


def read_source(source: str, format: str | None, options: Options) -> tuple[Source, dict[str, Any]]:
    """Find, recognise and read a source; the second value says where it came from."""
    if format is not None and format not in FORMATS:
        raise SaeError(f"format {format!r} is unknown, expected one of {', '.join(FORMATS)}")
    path = Path(source)
    if not path.exists():
        raise SaeError(f"{source} is not there: give a folder or file that exists")
    name = format or _detect(path)
    return FORMATS[name].read(path, options), {"location": source}


def _detect(path: Path) -> str:
    for name, module in FORMATS.items():
        if module.detect(path):
            return name
    raise SaeError(
        f"{path} is in no format that is recognised, expected one of {', '.join(FORMATS)}: give "
        "the folder that holds both configuration and weights, or force one with --format"
    )

"""What a command may write over: nothing that it reads, and nothing that this program didn't write.

Every command that writes asks here first, before any weight is loaded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from fpo_core.errors import ConfigError

Inputs = Mapping[str, str | Path | tuple[str, ...] | None]
"""What a command reads, by the settings that name it; those that aren't set are None."""


def check_inputs(
    targets: Iterable[Path], inputs: Inputs, setting: str = "output", folder: Path | None = None
) -> None:
    """Raise ConfigError where writing any of `targets` would touch what a command reads.

    That is an input by the same name or one inside of a target; or an input that is the `folder`
    itself into which the targets go. Links are resolved first; names of the hub, and files that
    are not there, can't be overwritten.
    """
    places = [target.expanduser().resolve() for target in targets]
    for name, value in _named(inputs):
        if not (source := Path(value).expanduser()).exists():
            continue
        covering = [place for place in places if _touches(place, source.resolve())]
        if folder is not None and folder.exists() and folder.samefile(source):
            covering.append(folder)
        if covering:
            raise ConfigError(
                f"{name} is {value}, and {covering[0]} would be written over it or into it: choose "
                f"another {setting}"
            )


def _named(inputs: Inputs) -> Iterator[tuple[str, str | Path]]:
    for name, value in inputs.items():
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                yield name, each


def _touches(target: Path, source: Path) -> bool:
    if source == target or target in source.parents:
        return True
    # Hard links, and names that differ in case only on disks that don't tell them from each other.
    return target.exists() and target.samefile(source)


def check_foreign(
    paths: Iterable[Path], is_ours: Callable[[Path], bool], setting: str = "output"
) -> None:
    """Raise ConfigError where one of `paths` is there and `is_ours` doesn't know it.

    A link is nobody's: whatever it points to, it isn't what was written under that name.
    """
    for path in paths:
        if path.is_symlink():
            raise ConfigError(
                f"{path} is a link, which is not followed: remove it, or choose another {setting}"
            )
        if path.exists() and not is_ours(path):
            raise ConfigError(
                f"{path} is there and was not written by this program, so it is not replaced: "
                f"move it, or choose another {setting}"
            )


def marked(marker: str) -> Callable[[Path], bool]:
    """Whether a folder holds the file by which this program knows its own; empty ones count too."""

    def is_ours(path: Path) -> bool:
        return path.is_dir() and ((path / marker).is_file() or not any(path.iterdir()))

    return is_ours

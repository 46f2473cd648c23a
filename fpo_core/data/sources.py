"""The splits behind the `data` setting: a file, a folder of files, or a hub data set."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpo_core.config import DataConfig
from fpo_core.data.files import READERS, read_rows, without_nulls
from fpo_core.errors import DataError
from fpo_core.io.digests import file_sha256
from fpo_core.io.hub import advice, gated, missing, reached
from fpo_core.pairs.pair import Pair, parse_pair

SPLIT_NAMES = {
    "train": ("train", "train_prefs"),
    "valid": ("valid", "validation", "test", "test_prefs"),
}
"""Accepted names of each split, by precedence: a test split validates where no other does."""
_CONFIGURATIONS = re.compile(r"(?:available configs|Available): \[(.*?)\]", re.DOTALL)
"""The names in an error of `datasets`, on a line behind its first."""


@dataclass(frozen=True)
class FileSource(Iterable[Pair]):
    """The pairs of one or several files; each iteration reads them again."""

    paths: tuple[Path, ...]
    mapping: Mapping[str, str] = field(default_factory=dict)
    """The column to read for a standard name."""

    def __iter__(self) -> Iterator[Pair]:
        for path in self.paths:
            for row, columns in read_rows(path):
                where = f"{path.name}, {self._unit(path)} {row}"
                yield parse_pair(columns, row, where, self.mapping)

    @property
    def name(self) -> str:
        """The files, for messages."""
        return ", ".join(str(path) for path in self.paths)

    def digest(self) -> str:
        """A hash of file names and contents, independent of the folder."""
        total = hashlib.sha256()
        for path in self.paths:
            try:
                total.update(path.name.encode() + bytes.fromhex(file_sha256(path)))
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
        return total.hexdigest()

    @staticmethod
    def _unit(path: Path) -> str:
        return "line" if path.suffix.lower() in (".jsonl", ".ndjson") else "row"


@dataclass(frozen=True)
class HubSource(Iterable[Pair]):
    """The pairs of one split of a `datasets` data set, memory-mapped by that library."""

    name: str
    dataset: Any
    mapping: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Pair]:
        for row, columns in enumerate(self.dataset, start=1):
            present = {name: without_nulls(item) for name, item in columns.items()}
            yield parse_pair(present, row, f"{self.name}, row {row}", self.mapping)

    def digest(self) -> str:
        """The fingerprint that `datasets` computes from content and transformations."""
        return f"{self.name}:{len(self.dataset)}:{self.dataset._fingerprint}"


Source = FileSource | HubSource


def open_sources(config: DataConfig) -> dict[str, Source]:
    """The splits of `config.data`: "train", and "valid" where there is one.

    A path that exists is read as a file or folder; anything else is a hub name. Raises DataError
    where neither is there, or no split is a training split.
    """
    path = Path(config.data).expanduser()
    mapping = config.column_names()
    if path.is_file():
        return {"train": _open_file(path, mapping)}
    if path.is_dir():
        return _open_folder(path, mapping)
    if path.suffix.lower() in READERS or looks_local(config.data):
        raise DataError(
            f"data is {config.data!r}, but there is no file or folder {path.absolute()}"
        )
    return _open_hub(config.data, mapping)


def read_pairs(config: DataConfig) -> dict[str, Iterable[Pair]]:
    """The pairs of each split of `config.data`, streamed: each iteration reads the files again.

    Raises DataError, here or while iterating, with file, row and column.
    """
    return {split: source for split, source in open_sources(config).items()}


def looks_local(name: str) -> bool:
    """Whether a name that does not exist looks like a path, by its spelling or its parent."""
    parent = Path(name).parent
    return name.startswith((".", "/", "~")) or (parent != Path(".") and parent.is_dir())


def _open_file(path: Path, mapping: Mapping[str, str]) -> FileSource:
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path} ends in {path.suffix!r}, expected one of {', '.join(READERS)}")
    return FileSource((path,), mapping)


def _open_folder(folder: Path, mapping: Mapping[str, str]) -> dict[str, Source]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in READERS)
    splits: dict[str, Source] = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            paths = tuple(p for p in files if p.stem == name or p.stem.startswith(f"{name}-"))
            if paths:
                splits[split] = FileSource(paths, mapping)
                break
    if "train" not in splits:
        listed = ", ".join(path.name for path in files) or "no data files"
        raise DataError(
            f"{folder} holds {listed}, expected train.jsonl (or .json, .parquet) and perhaps "
            "valid.jsonl: rename the files"
        )
    return splits


def _why_not(name: str, error: Exception) -> str:
    """One sentence for an error of `datasets`, which reports the hub's answers as text."""
    from datasets.exceptions import DatasetNotFoundError

    configurations = _CONFIGURATIONS.search(str(error))
    if configurations is not None:
        names = configurations[1].replace("'", "")
        return (
            f"{name} has the configurations {names}, expected one "
            "of them: set data to user/name:configuration"
        )
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    if isinstance(error, DatasetNotFoundError):
        return gated(name) if "gated" in reason else missing(name)
    return advice(name, error) or (
        f"data is {name!r}, which is no local file and cannot be loaded from the hub: {reason}"
    )


def _open_hub(text: str, mapping: Mapping[str, str]) -> dict[str, Source]:
    import datasets

    address, _, revision = text.partition("@")
    name, _, configuration = address.partition(":")
    try:
        with reached(name, "dataset", revision or None):
            loaded: Any = datasets.load_dataset(
                name, configuration or None, revision=revision or None
            )
    except Exception as error:  # `datasets` raises whatever the network or a loader raised
        raise DataError(_why_not(name, error)) from None
    splits: dict[str, Source] = {}
    for split, names in SPLIT_NAMES.items():
        match = next((candidate for candidate in names if candidate in loaded), None)
        if match is not None:
            splits[split] = HubSource(f"{text}, split {match}", loaded[match], mapping)
    if "train" not in splits:
        raise DataError(f"{text} has the splits {', '.join(loaded)}, expected one named train")
    return splits

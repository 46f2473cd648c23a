"""Files of arrays that lie in rows in all processes of a sharded run, written by all of them."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import Group, all_or_none, only_first
from fpo_core.io.atomic import move_into, writing
from fpo_core.io.digests import describe
from fpo_core.io.leftovers import remove, temporary_beside
from fpo_core.io.shards import Shard, fill, reserve
from fpo_core.io.writer import FileHash, write_arrays

Arrays = Mapping[str, np.ndarray | Shard]
_NAME_BYTES = 256


@dataclass(frozen=True)
class Prepared:
    """Files that all processes wrote to a temporary folder, for the first one to put in place."""

    folder: Path | None
    files: Mapping[str, Arrays]

    def place(self, folder: Path) -> dict[str, FileHash]:
        """Move them into a folder, or write them where the arrays lay whole in the first process.

        Returns their sizes and hashes.
        """
        if self.folder is None:
            return {n: write_arrays(folder / n, _whole(a)) for n, a in self.files.items()}
        for name in self.files:
            move_into(folder, self.folder / name)
        return {name: describe(folder / name) for name in self.files}


def _whole(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in arrays.items()}


@contextlib.contextmanager
def prepared(group: Group, path: Path, files: Mapping[str, Arrays]) -> Iterator[Prepared]:
    """Files with these arrays, for the body to put in place; `path` is what they are for.

    Raises WriteError, in all processes some error, where one cannot write.
    """
    if not any(isinstance(a, Shard) for arrays in files.values() for a in arrays.values()):
        yield Prepared(None, files)
        return
    folder = path.with_name(
        told_by_first(group, temporary_beside(path.with_name(f"{path.name}.parts")).name)
    )

    def make() -> None:
        with writing(path):
            remove(folder)
            folder.mkdir(parents=True)
            for name, arrays in files.items():
                reserve(folder / name, arrays)

    def write() -> None:
        with writing(path):
            for name, arrays in files.items():
                fill(folder / name, arrays, first=not group.rank)

    try:
        only_first(group, make)
        all_or_none(group, write)
        yield Prepared(folder, files)
    finally:
        if not group.rank:
            remove(folder)


def takes_part(group: Group, policy: Policy) -> bool:
    """Whether this process has a part in what is saved: the first one, of a sharded policy each."""
    return policy.info.sharded or not group.rank


def told_by_first(group: Group, name: str) -> str:
    """The name that the first process gives, in all of them."""
    codes = np.zeros(_NAME_BYTES, np.float32)
    if not group.rank:
        data = name.encode()
        codes[: len(data)] = list(data)
    return bytes(group.sum(codes).astype(np.uint8)).rstrip(b"\0").decode()


def gathered(group: Group, arrays: Arrays) -> dict[str, np.ndarray]:
    """Arrays whole in every process: for adapters, which are small."""
    return {name: _gathered(group, array) for name, array in arrays.items()}


def _gathered(group: Group, array: np.ndarray | Shard) -> np.ndarray:
    if not isinstance(array, Shard):
        return array
    whole = np.zeros(array.shape, np.float32)
    whole[array.start : array.start + len(array.rows)] = array.rows
    return group.sum(whole)

"""Opening files that others made: regular ones only, of a size and a depth that is expected.

A FIFO or a device under the name of a file would keep its reader waiting for ever.
"""

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fpo_core.errors import FpoError

MAX_TEXT_BYTES = 64 << 20
"""Of a configuration, an index or a manifest: a model of 10,000 shards stays below."""
MAX_DEPTH = 50
"""Lists and objects in each other; what is read here has about five."""

Fault = Callable[[str], FpoError]
"""The error for a sentence that says what was found and what was expected."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading; OSError where it is a folder, a FIFO, a socket or a device."""
    # Without waiting for whoever writes to a FIFO; regular files don't know the difference.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"it is {_kind(mode)}, expected a regular file", str(path))
    return os.fdopen(handle, "rb")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def read_text(path: Path, fault: Fault, limit: int | None = MAX_TEXT_BYTES) -> str:
    """A text file as UTF-8, less a byte-order mark; a small one, unless there is no `limit`.

    Raises `fault` for any other.
    """
    try:
        with open_regular(path) as file:
            data = file.read() if limit is None else file.read(limit + 1)
        if limit is not None and len(data) > limit:
            raise fault(f"{path} has over {limit >> 20} MiB, expected a small text file")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise fault(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise fault(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_lines(
    path: Path, fault: Fault, limit: int | None = MAX_TEXT_BYTES
) -> Iterator[tuple[str, str]]:
    """Lines of such a file that are not empty, each with its place in words. Raises `fault`.

    They end at line feeds alone: JSON leaves Unicode's own ends, such as U+2028, within a text.
    """
    for number, line in enumerate(read_text(path, fault, limit).split("\n"), 1):
        if line.strip():
            yield line.removesuffix("\r"), f"{path} line {number}"


def read_json(path: Path, fault: Fault, limit: int = MAX_TEXT_BYTES) -> Any:
    """The value of a JSON file. Raises `fault` where it is no JSON, too large or too deep."""
    return parse_json(read_text(path, fault, limit), str(path), fault)


def read_json_object(path: Path, fault: Fault, limit: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """The object of a JSON file. Raises `fault` as `read_json`, and for any other value."""
    value = read_json(path, fault, limit)
    if not isinstance(value, dict):
        raise fault(f"{path} is {type(value).__name__} in JSON, expected an object")
    return value


def parse_json(text: str, where: str, fault: Fault) -> Any:
    """The value of a JSON text that stands at `where`; `fault` for a bad one or repeated keys."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise fault(f"{where} nests deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise fault(f"{where} is not JSON ({error})") from None
    check_depth(value, where, fault)
    return value


def read_yaml(path: Path, fault: Fault, limit: int = MAX_TEXT_BYTES) -> Any:
    """The value of a YAML file, of plain types only. Raises `fault` as `read_json`."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            _unique([(str(key.value), None) for key, _ in pairs])
            return super().construct_mapping(node, deep)

    try:
        value = yaml.load(read_text(path, fault, limit), Loader)
    except RecursionError:
        raise fault(f"{path} nests deeper than {MAX_DEPTH} levels") from None
    except (yaml.YAMLError, ValueError) as error:
        raise fault(f"{path} is not YAML ({' '.join(str(error).split())})") from None
    check_depth(value, str(path), fault)
    return value


def check_depth(value: Any, where: str, fault: Fault, most: int = MAX_DEPTH) -> None:
    """Raise `fault` where lists and objects nest deeper; a value that holds itself does."""
    level = [value]
    for _ in range(most):
        # Each container once a level: YAML's aliases may repeat one a billion times.
        level = list({id(item): item for each in level for item in _containers(each)}.values())
        if not level:
            return
    raise fault(f"{where} nests deeper than {most} levels")


def _containers(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value if _is_list(value) else ()
    return [item for item in items if isinstance(item, dict) or _is_list(item)]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return result

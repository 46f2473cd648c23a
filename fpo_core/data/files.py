"""Reading rows from JSONL, JSON and Parquet files, streamed where the format allows it."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from fpo_core.errors import DataError
from fpo_core.io.regular import MAX_DEPTH, check_depth, open_regular

Row = tuple[int, Any]
"""Row number from 1 (the line, for JSONL), and the row's columns."""

MAX_ROW = 16 << 20
"""Characters of a line: a pair of a million tokens stays below."""
_PARQUET_ROWS = 1024


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of one data file, by its suffix. Raises DataError with the file and the line."""
    try:
        yield from READERS[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def _read_jsonl(path: Path) -> Iterator[Row]:
    with _open_text(path) as file:
        # Line by line and never more: one without an end would fill the memory.
        for number, line in enumerate(iter(lambda: file.readline(MAX_ROW + 1), ""), start=1):
            if len(line) > MAX_ROW:
                raise DataError(
                    f"{path}, line {number}: longer than {MAX_ROW >> 20} million characters, "
                    "expected one pair a line"
                )
            if line.strip():
                yield number, _parse(line, f"{path}, line {number}", "one JSON object a line")


def _open_text(path: Path) -> TextIO:
    return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig")


def _read_json(path: Path) -> Iterator[Row]:
    """A list of objects, or JSON lines, which many files on the hub hold under this suffix."""
    with _open_text(path) as file:
        start = next((char for char in iter(lambda: file.read(1), "") if not char.isspace()), "")
        if start != "[":
            yield from _read_jsonl(path)
            return
        yield from enumerate(_parse(start + file.read(), str(path), "a list of objects"), start=1)


def _parse(text: str, where: str, expected: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON ({error}), expected {expected}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH:
        for row in value if isinstance(value, list) else [value]:
            check_depth(row, where, DataError)
    return value


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for columns in batch.to_pylist():
                    number += 1
                    yield number, without_nulls(columns)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None


def without_nulls(value: Any) -> Any:
    """`value` without null entries: Arrow adds them where another row has the key.

    Chat templates test whether a message has `tool_calls`, and a null would count as present.
    """
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}

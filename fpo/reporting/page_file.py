"""Where a page is written, and how one is known."""

from pathlib import Path

from fpo_core.io.atomic import write_atomically
from fpo_core.io.ownership import check_foreign

REPORT_FILE = "report.html"
_MARK = b'<meta name="generator" content="fpo-mlx '


def write_page(out: Path, text: str) -> int:
    """Write a page over an earlier one, never over another file; its size in bytes."""
    check_foreign([out], is_page)
    # Lone surrogates, which a tokenizer's damaged bytes may leave, have no UTF-8.
    data = text.encode("utf-8", errors="replace")
    write_atomically(out, lambda path: path.write_bytes(data))
    return len(data)


def is_page(path: Path) -> bool:
    """Whether a file is a page of this program."""
    with path.open("rb") as file:
        return _MARK in file.read(4096)

"""Documents of which benchmarks write a part, between two marks."""

from pathlib import Path


def filled(text: str, begin: str, end: str, body: str) -> str:
    """A page's text with the body, a paragraph apart, between its marks.

    Raises SystemExit where the page lacks them.
    """
    before, _, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not closed:
        raise SystemExit(f"a page lacks {begin!r} and {end!r}: put both where the figures go")
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


def fill(page: Path, begin: str, end: str, body: str) -> None:
    """`filled`, in the file."""
    page.write_text(filled(page.read_text(encoding="utf-8"), begin, end, body), encoding="utf-8")

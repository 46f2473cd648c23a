"""Text of others (data, vocabularies, metadata, file names) made safe for where it is shown.

A terminal obeys control sequences, follows marks of direction, and hides characters of no width;
Markdown obeys punctuation. What would be obeyed or hidden is written as an escape.
"""

import re
import unicodedata

from fpo_core.errors import DataError

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of controls, formats (bidirectional marks, zero width), lone surrogates and
separators of lines and paragraphs.
"""
_MARKDOWN = re.compile(r"([\\`*\[\]<>|~&$!]|(?<!\w)_|_(?!\w)|^[#+=-])")
"""What begins a span, a link, HTML, a cell or mathematics anywhere, or a block at the start."""

_ACCENTS = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]"
_STACKED = re.compile(f"({_ACCENTS}{{3}}){_ACCENTS}+")
"""More accents on one letter than any language writes."""


def check_unicode(text: str, where: str) -> None:
    """Raise DataError for half of a surrogate pair, which no tokenizer accepts.

    JSON can hold one, and so can what was typed in a terminal of another encoding.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: the text is not valid Unicode ({error}): fix it") from None


def for_terminal(text: str, keep: str = "\n\t") -> str:
    """The text with every character that a terminal would obey or hide as an escape, \\x1b say.

    Those in `keep` stay; give "" for what must stand on one line.
    """
    if text.isprintable():
        return text
    return "".join(_visible(char) if char not in keep else char for char in text)


def one_line(text: str) -> str:
    """As `for_terminal`, with runs of white space as one space."""
    return for_terminal(" ".join(text.split()), keep="")


def for_json(text: str) -> str:
    """JSON text that means the same, with hidden characters as \\u escapes; newlines stay.

    Outside of strings JSON holds no such character, and inside any may be written so.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char == "\n" or not _is_hidden(char) else _json_escape(char) for char in text
    )


def for_page(text: str, most: int = 20_000) -> str:
    """The text for a page, hidden characters as escapes, and cut in the middle beyond `most`.

    Markup is the template's to escape: this is about what HTML itself lets through, such as marks
    of direction, accents stacked over whole lines, and a megabyte of one word.
    """
    if len(text) > most:
        text = f"{text[: most // 2]} … {len(text) - most} characters … {text[-most // 2 :]}"
    return for_terminal(_STACKED.sub(r"\1…", text))


def for_markdown(text: str) -> str:
    """The text on one line, its punctuation escaped, so that Markdown shows it as it stands."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def code_span(text: str) -> str:
    """The text as a span of code, in a fence longer than any run of backticks inside."""
    line = one_line(text)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    # A table ends its cell at any bar, in code too.
    return f"{fence}{pad}{line.replace('|', chr(92) + '|')}{pad}{fence}"


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN


def _visible(char: str) -> str:
    if not _is_hidden(char):
        return char
    number = ord(char)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    pairs = (units[i : i + 2].hex() for i in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs)

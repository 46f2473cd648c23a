"""What a terminal or Markdown would obey or hide is shown as an escape; the rest as it is."""

import json

import pytest

from fpo_core.io.foreign_text import (
    code_span,
    for_json,
    for_markdown,
    for_page,
    for_terminal,
    one_line,
)

PLAIN = "naïve 日本語 … – 1,5 € 🙂"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb", r"a\x0db"),
        ("a\x08\x7f", r"a\x08\x7f"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("\u2066x\u2069", r"\u2066x\u2069"),
        ("pass\u200bword\ufeff", r"pass\u200bword\ufeff"),
        ("a\u2028b", r"a\u2028b"),
        ("\U000e0041", r"\U000e0041"),
        ("\ud800", r"\ud800"),
        (PLAIN, PLAIN),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_on_a_terminal(text, shown):
    assert for_terminal(text) == shown


def test_no_character_that_stays_is_a_control():
    every = "".join(map(chr, range(0x3100)))
    shown = for_terminal(every, keep="")
    assert all(char.isprintable() or char.isspace() or not char.isascii() for char in shown)
    assert not set(shown) & {chr(n) for n in (*range(32), *range(127, 160), 0x200B, 0x202E)}


def test_on_one_line():
    assert one_line(" a\n\n b\tc\x1b ") == r"a b c\x1b"
    assert for_terminal("a\nb", keep="") == r"a\x0ab"


@pytest.mark.parametrize("text", ["\x1b\x7f\x9b", "\u202e", "\U000e0041\u200b", "\ud800", PLAIN])
def test_in_json_the_value_is_the_same(text):
    value = {"key" + text: [text, 1]}
    raw = json.dumps(value, indent=2, ensure_ascii=False)
    safe = for_json(raw)
    assert json.loads(safe) == value
    assert for_terminal(safe) == safe
    assert "\n" in safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# title", r"\# title"),
        ("[x](javascript:y)", r"\[x\](javascript:y)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("a|b", r"a\|b"),
        ("![x](y)", r"\!\[x\](y)"),
        ("a\n\n- b", "a - b"),
        ("`code` *b* _i_ ~s~", r"\`code\` \*b\* \_i\_ \~s\~"),
        ("---", r"\---"),
        ("- a", r"\- a"),
        ("my_model-1.5", "my_model-1.5"),
        ("\x1b[0m", r"\\x1b\[0m"),
        ("Qwen 2.5", "Qwen 2.5"),
    ],
)
def test_in_markdown(text, shown):
    assert for_markdown(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "`plain`"),
        ("a`b", "``a`b``"),
        ("`a", "`` `a ``"),
        ("a``b", "```a``b```"),
        ("a\n# b", "`a # b`"),
        ("a|b", r"`a\|b`"),
        ("", "`  `"),
    ],
)
def test_as_code(text, shown):
    assert code_span(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (PLAIN, PLAIN),
        ("<b>&amp;</b>", "<b>&amp;</b>"),  # markup is the template's to escape
        ("a\u202eb\u200b", r"a\u202eb\u200b"),
        ("e\u0301\u0302\u0303", "e\u0301\u0302\u0303"),
        ("e" + "\u0301" * 90 + "!", "e\u0301\u0301\u0301…!"),
        ("x" * 50, "xxxxx … 40 characters … xxxxx"),
    ],
)
def test_on_a_page(text, shown):
    assert for_page(text, 10 if len(text) == 50 else 1000) == shown

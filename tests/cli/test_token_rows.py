"""How inspected pairs are printed."""

import io

from rich.console import Console

from fpo_cli.console.token_rows import render
from fpo_core.data.inspect import inspect_rows
from fpo_core.data.token_store import TokenisedPairs
from tests.core.data_fixtures import END, A, B, C, D, E, word_tokenizer

DATA = TokenisedPairs.from_lists([([A, B], [C, END], [D, E, END])])


def test_render_marks_prompt_completion_and_padding():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=200)
    render(inspect_rows(DATA, word_tokenizer()), console)
    text = out.getvalue()
    assert "row 1 chosen (2 prompt, 2 completion, 28 padding tokens)" in text
    assert "\x1b[36ma\x1b[0m\x1b[4;36mb\x1b[0m\x1b[32mc\x1b[0m\x1b[4;32m<|im_end|>" in text
    assert "·" * 28 in text

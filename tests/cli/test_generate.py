"""`fpo generate`: prompts from a pipe, and answers as they come."""

import io
import sys

import pytest

from fpo.world import assets

from .conftest import Fpo

QUESTION = "Tell me about the red lamp."


@pytest.mark.parametrize(
    ("piped", "read"),
    [
        (f"{QUESTION}\n", QUESTION),
        (QUESTION, QUESTION),
        (f"{QUESTION}\n\n", f"{QUESTION}\n"),
        (f"\n{QUESTION}", f"\n{QUESTION}"),
    ],
)
def test_a_piped_prompt_loses_one_newline_at_its_end(
    piped: str, read: str, fpo: Fpo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`echo question | fpo generate --prompt -` asks the question and no empty line after it."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(piped))
    options = ["--model", assets().model, "--backend", "torch", "--max-tokens", 1, "--json"]
    ran = fpo("generate", *options, "--prompt", "-", "--ignore-chat-template")
    assert ran.code == 0, ran.err
    assert ran.json["prompt"] == read

"""`fpo generate`: prompts from a pipe, and answers as they come."""

import io
import re
import sys

import pytest

import fpo as fpo_api
from fpo.world import assets

from .conftest import Fpo

USE = ["--model", assets().model, "--backend", "torch", "--temp", 0]
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


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_an_answer_comes_in_pieces_that_make_it_up(backend: str) -> None:
    """The last event of a piece is not the first: a person reads on while the model goes on."""
    events: list[fpo_api.Event] = []
    options = {"model": assets().model, "backend": backend, "prompt": QUESTION, "temperature": 0}
    result = fpo_api.generate(**options, max_tokens=12, samples=2, sink=events.append)
    for i, text in enumerate(result.texts):
        pieces = [e.values["text"] for e in events if e.kind == "text" and e.values["sample"] == i]
        assert "".join(pieces) == text
        assert len(pieces) > 3
    counts = [e.values["done"] for e in events if e.kind == "progress"]
    assert counts[-1] == sum(completion.tokens for completion in result.completions)


def test_the_command_shows_them_and_says_how_fast_it_was(fpo: Fpo) -> None:
    asked = fpo("generate", *USE, "--prompt", QUESTION, "--max-tokens", 12)
    assert asked.code == 0, asked.err
    whole = fpo("generate", *USE, "--prompt", QUESTION, "--max-tokens", 12, "--json").json
    assert asked.out == whole["completions"][0]["text"] + "\n"
    assert re.search(r"^\d+ tokens, [\d.]+ tokens/s$", asked.err, re.MULTILINE)

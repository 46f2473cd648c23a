"""A limit on the time and the size of what chat templates compute."""

import os
import time

import pytest

from fpo_core.data import tokenizer as module
from fpo_core.data.time_limit import time_limit
from fpo_core.data.tokenizer import render, special_ids
from fpo_core.errors import DataError
from tests.core import data_fixtures as fx

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HELLO = [{"role": "user", "content": "a"}]


def spin():
    while True:
        pass


def test_what_takes_too_long_is_ended():
    start = time.monotonic()
    with pytest.raises(TimeoutError), time_limit(0.2):
        spin()
    assert time.monotonic() - start < 10


def test_nothing_comes_after_the_end():
    for _ in range(3):
        with time_limit(0.3):
            pass
    time.sleep(0.7)


def test_a_forked_process_is_watched_too():
    with time_limit(1.0):
        pass
    child = os.fork()
    if not child:
        try:
            with time_limit(0.2):
                spin()
        except TimeoutError:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_an_endless_template_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.3)
    tokenizer = fx.word_tokenizer(ENDLESS + fx.CHATML)
    with pytest.raises(DataError, match=r"^line 5: the chat template did not end within 0.3 s$"):
        render(tokenizer, HELLO, generation_prompt=False, where="line 5")
    assert special_ids(tokenizer)["end_of_turn"] == special_ids(tokenizer)["eos"]


def test_an_endless_text_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "_CHARACTERS", 1000)
    tokenizer = fx.word_tokenizer("{{ 'x' * 1001 }}")
    with pytest.raises(DataError, match="writes 1001 characters, expected at most 1000"):
        render(tokenizer, HELLO, generation_prompt=False)
    assert (
        len(render(fx.word_tokenizer("{{ 'x' * 1000 }}"), HELLO, generation_prompt=False)) == 1000
    )

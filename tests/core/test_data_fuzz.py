"""Rows that went wrong at random: read as a person would, or refused with row, column and why."""

import json
import random
import re
from collections import Counter

import pytest

from fpo_core.data.tokenise import PairTokeniser
from fpo_core.errors import DataError
from fpo_core.pairs.columns import PROMPTS
from fpo_core.pairs.pair import parse_pair
from tests.core import data_fixtures as fx
from tests.core.data_fixtures import assistant, user

ROWS = 2000
SYSTEM, ASK, MORE = "You know animals.", "Which animal purrs?", "Think of a pet."
GOOD, BAD, NOTE = "Our cat does it.", "Any stone does.", "written by hand"
TALK = {"chosen": [user(ASK), assistant(GOOD)], "rejected": [user(ASK), assistant(BAD)]}
CALLS = {"role": "assistant", "content": GOOD, "tool_calls": [{"name": "look_it_up"}]}
VALID = (
    {"prompt": ASK, "chosen": GOOD, "rejected": BAD, "source": NOTE},
    {"prompt": [user(ASK)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]},
    {
        "prompt": [user(ASK)],
        "chosen": [CALLS],
        "rejected": [assistant(BAD)],
        "tools": [{"a": NOTE}],
    },
    TALK | {"score_chosen": 5, "score_rejected": 1, "source": NOTE},
    TALK | {"prompt": ASK, "system": SYSTEM},
    {"system": SYSTEM, "question": ASK, "chosen": GOOD, "rejected": BAD},
    {"instruction": ASK, "input": MORE, "output": [GOOD, BAD], "system": SYSTEM},
    {"chosen": f"\n\nHuman: {ASK}\n\nAssistant: {GOOD}"}
    | {"rejected": f"\n\nHuman: {ASK}\n\nAssistant: {BAD}"},
    {
        "conversations": [{"from": "human", "value": ASK}],
        "chosen": {"from": "gpt", "value": GOOD},
        "rejected": {"from": "gpt", "value": BAD},
    },
    {
        "instruction": ASK,
        "completions": [
            {"response": GOOD, "overall_score": 9.0, "critique": NOTE},
            {"response": BAD, "overall_score": 2.0},
        ],
    },
    {"prompt": [user(ASK)], "chosen": [assistant([{"type": "text", "text": GOOD}])]}
    | {"rejected": [assistant([{"type": "text", "text": BAD}])], "messages": [user(ASK)]},
)
NAMES = ("prompt", "question", "system", "input", "chosen", "rejected", "answer", "content", "x")
TURN = re.compile(r"\n\nHuman: |\n\nAssistant: ")
WORDLESS = ("role", "from", "type")
"""Keys whose values are no words of anybody."""


def drop(holder, key, rng):
    del holder[key]


def rename(holder, key, rng):
    holder[rng.choice(NAMES)] = holder.pop(key)


def nest(holder, key, rng):
    value = holder[key]
    holder[key] = rng.choice(([value], {"text": value}, {"value": value, "lang": "en"}))


def null(holder, key, rng):
    holder[key] = rng.choice((None, "", [], {}))


def stringify(holder, key, rng):
    holder[key] = rng.choice((json.dumps, str))(holder[key])


def holders(value):
    """All objects in a row, the row itself among them."""
    if isinstance(value, dict) and value:
        yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from holders(item)


def texts(value, key=""):
    """The words in a value, those in JSON texts included."""
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except ValueError:
            inner = None
        if isinstance(inner, dict | list):
            yield from texts(inner)
        elif key not in WORDLESS:
            yield from filter(None, map(str.strip, TURN.split(value)))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, key)


def broken_rows():
    """Valid rows after one or two mutations."""
    rng = random.Random(30)
    for _ in range(ROWS):
        row = json.loads(json.dumps(rng.choice(VALID)))
        for _ in range(rng.choice((1, 1, 2))):
            holder = rng.choice(list(holders(row)) or [{"x": 1}])
            mutate = rng.choice((drop, rename, nest, null, stringify))
            mutate(holder, rng.choice(list(holder)), rng)
        yield row


@pytest.fixture(scope="module")
def tokeniser():
    tokenizer = fx.byte_tokenizer()
    tokenizer.chat_template = fx.CHATML
    return PairTokeniser(tokenizer, 4096), tokenizer


def lost(row, sides, report):
    """The words of a row that are neither in its tokens nor named by the report."""
    told = " ".join(example for examples in report.examples.values() for example in examples)
    keys = told.replace(",", " ").split()
    named = [name for name in row if name in report.ignored or name in keys]
    for column, value in row.items():
        if column in named:
            continue
        for text in texts(value):
            written = any(text in side or json.dumps(text)[1:-1] in side for side in sides)
            squeezed = any("".join(text.split()) in "".join(side.split()) for side in sides)
            if (
                not written
                and not squeezed
                and not any(key in keys for key in keys_of(value, text))
            ):
                yield column, text


def keys_of(value, text):
    """The keys under which a text is found in a value."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            return
    items = value.items() if isinstance(value, dict) else [("", item) for item in value]
    for key, written in items:
        spelt = isinstance(written, str) and written[:1] in ("[", "{")
        item = list(texts(written)) if spelt else written
        if isinstance(item, dict | list):
            inner = list(keys_of(item, text))
            yield from inner
            if inner or text in list(texts(item)):
                yield key
        elif isinstance(item, str) and item.strip() == text:
            yield key


def judged(row, number, tokeniser):
    """What becomes of a row, and what is wrong with that."""
    tokenise, tokenizer = tokeniser
    where = f"p.jsonl, line {number}"
    try:
        packed, report = tokenise([parse_pair(row, number, where)])
    except DataError as error:
        told = str(error)
        right = told.startswith(f"{where}: ") and ("expected" in told or "refuses" in told)
        return "refused", [] if right else [told]
    if not report.kept:
        return "dropped", [] if report.dropped == 1 else ["not counted"]
    _, _, prompt, chosen, _, _ = packed.index[0]
    parts = (slice(prompt), slice(prompt, prompt + chosen), slice(prompt + chosen, None))
    sides = [tokenizer.decode(packed.tokens[part]) for part in parts]
    whole = [sides[0] + side for side in ("", *sides[1:])]
    faults = [f"lost {column}: {text}" for column, text in lost(row, whole, report)]
    faults += ["sides swapped"] * (BAD in sides[1] or GOOD in sides[2])
    faults += ["trains without its question"] * asks_in_vain(row, sides, report)
    return "read", faults


def asks_in_vain(row, sides, report):
    """Whether a column that asks is not in the prompt, and no row would be refused for that."""
    asking = [name for name, value in row.items() if ASK in texts(value)]
    known = any(name not in report.ignored or name in PROMPTS for name in asking)
    return known and ASK not in sides[0] and not report.problems()


def test_no_row_loses_its_words_in_silence(tokeniser):
    outcomes, faults = Counter(), []
    for number, row in enumerate(broken_rows(), start=1):
        outcome, wrong = judged(row, number, tokeniser)
        outcomes[outcome] += 1
        faults += [(row, wrong)] * bool(wrong)
    assert faults == []
    assert outcomes.total() == ROWS
    assert min(outcomes["read"], outcomes["refused"]) > ROWS // 10

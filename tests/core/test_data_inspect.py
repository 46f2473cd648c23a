import dataclasses
import json

from fpo_core.data.inspect import inspect_rows, token_texts
from fpo_core.data.token_store import TokenisedPairs
from tests.core import data_fixtures as fx
from tests.core.data_fixtures import END, A, B, C, D, E

DATA = TokenisedPairs.from_lists([([A, B], [C, END], [D, E, END]), ([A], [*[B] * 31], [C])])


def test_segments_are_what_the_mask_says():
    first, second = inspect_rows(DATA, fx.word_tokenizer(), 2)
    chosen, rejected = first.sides
    assert [(s.kind, s.mask, len(s.ids)) for s in chosen.segments] == [
        ("prompt", 0, 2),
        ("completion", 1, 2),
        ("padding", 0, 28),
    ]
    assert chosen.segments[1].ids == [C, END]
    assert chosen.segments[1].tokens == ["c", "<|im_end|>"]
    assert rejected.text == "abde<|im_end|>"
    assert [s.kind for s in second.sides[0].segments] == ["prompt", "completion"]
    assert (second.position, second.row) == (1, 2)
    assert first.key == DATA[0].key.hex()


def test_the_shortest_row():
    tiny = TokenisedPairs.from_lists([([A], [C], [D])])
    kinds = [
        (s.kind, len(s.ids)) for s in inspect_rows(tiny, fx.word_tokenizer())[0].sides[0].segments
    ]
    assert kinds == [("prompt", 1), ("completion", 1), ("padding", 30)]


def test_rows_end_with_the_data():
    assert len(inspect_rows(DATA, fx.word_tokenizer(), 5)) == 2
    assert inspect_rows(DATA, fx.word_tokenizer(), 1, start=1)[0].row == 2
    assert inspect_rows(DATA, fx.word_tokenizer(), 1, start=2) == []


def test_json():
    mapping = dataclasses.asdict(inspect_rows(DATA, fx.word_tokenizer())[0])
    assert json.loads(json.dumps(mapping)) == mapping
    assert mapping["sides"][1]["segments"][1]["tokens"] == ["d", "e", "<|im_end|>"]


def test_token_texts_add_up_and_name_parts_of_characters():
    tokenizer = fx.byte_tokenizer()
    ids = tokenizer("a ab é").input_ids
    texts = token_texts(tokenizer, ids)
    assert texts == ["a", " ", "ab", " ", "Ã", "©"]

"""Greedy answers before and after: what is right, what repeats itself, and what a file may ask."""

from pathlib import Path

import numpy as np
import pytest

from fpo_core.errors import DataError
from fpo_core.evaluation.greedy_answers import (
    Answer,
    Question,
    compared,
    questions_of,
    repetition,
    summary,
)


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        ("Paris", "It is PARIS.", True),
        ("4|four", "That makes four!", True),
        ("4|four", "That makes 44, or fourteen.", False),
        ("H2O | H₂O", "Water is H₂O, of course", True),
        ("a+b", "the sum a+b", True),
        ("east", "", False),
        (None, "whatever", None),
    ],
)
def test_an_answer_is_right_by_a_whole_word(expected, answer, right):
    assert Question("?", expected).is_right(answer) is right


@pytest.mark.parametrize(
    ("ids", "share"),
    # 1 2 3 4, 2 3 4 1, 3 4 1 2, 4 1 2 3, 1 2 3 4: one of five was there before.
    [([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5), ([7] * 13, 9 / 10), ([1, 2, 3], 0.0), ([], 0.0)],
)
def test_repetition_by_hand(ids, share):
    assert repetition(np.array(ids, np.int32)) == pytest.approx(share)


def answers(*texts, repeats=0.0):
    asked = [Question("hot?", "cold"), Question("sky?"), Question("2+2?", "4")]
    return [Answer(q, text, repeats) for q, text in zip(asked, texts, strict=True)]


def test_both_sides_in_the_shape_that_is_told():
    before, after = answers("cold", "blue", "5"), answers("warm", "red", "4", repeats=0.5)
    assert compared(before, after) == [
        {
            "kind": "general",
            "prompt": "hot?",
            "before": "cold",
            "after": "warm",
            "expected": "cold",
            "right_before": True,
            "right_after": False,
        },
        {"kind": "general", "prompt": "sky?", "before": "blue", "after": "red"},
        {
            "kind": "general",
            "prompt": "2+2?",
            "before": "5",
            "after": "4",
            "expected": "4",
            "right_before": False,
            "right_after": True,
        },
    ]
    assert compared([], after)[0] == {
        "kind": "general",
        "prompt": "hot?",
        "after": "warm",
        "expected": "cold",
        "right_after": False,
    }
    assert summary(after) == {"facts": 1, "questions": 2, "repetition": 0.5}
    assert summary(after[1:2]) == {"repetition": 0.5}
    assert summary([]) == {}


def test_ten_general_questions_by_default():
    questions = questions_of(None)
    assert len(questions) == 10
    assert all(q.expected and q.kind == "general" for q in questions)
    words = [word for q in questions for word in (q.expected or "").split("|")]
    assert all(q.is_right(f"It is {(q.expected or '').split('|')[0]}.") for q in questions)
    assert not any(q.is_right(q.prompt) for q in questions), "a question gives no answer away"
    assert len(words) == len({*words})


def test_own_questions_are_read(tmp_path: Path):
    rows = tmp_path / "own.jsonl"
    rows.write_text('{"prompt": "Up?", "expected": "down|below"}\n\n{"prompt": "Why?"}\n')
    assert questions_of(str(rows)) == [Question("Up?", "down|below"), Question("Why?")]
    lines = tmp_path / "own.txt"
    lines.write_text("Up?\nWhy?\n")
    assert questions_of(str(lines)) == [Question("Up?"), Question("Why?")]


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[1]",
        "{}",
        '{"prompt": ""}',
        '{"prompt": 3}',
        '{"prompt": "x", "expected": 4}',
        '{"prompt": "x", "expected": "a||b"}',
        '{"prompt": "x", "expected": ""}',
    ],
)
def test_a_line_that_asks_nothing_is_refused_by_number(line, tmp_path: Path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"own\.jsonl line 2"):
        questions_of(str(path))


def test_files_that_are_absent_empty_or_in_another_encoding_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="there is no prompt file"):
        questions_of(str(tmp_path / "absent"))
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(DataError, match="is empty, expected one prompt a line"):
        questions_of(str(empty))
    empty.write_bytes("Où?".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        questions_of(str(empty))

import numpy as np
import pytest

from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenise import PairTokeniser, common_prefix
from fpo_core.data.truncate import Budget
from fpo_core.errors import ConfigError, DataError
from fpo_core.pairs.pair import parse_pair
from tests.core import data_fixtures as fx
from tests.core.data_fixtures import (
    AB,
    ASSISTANT,
    BOS,
    END,
    EOS,
    NL,
    START,
    TOOLS,
    USER,
    A,
    B,
    C,
    D,
    E,
    assistant,
    user,
)

ASK = [START, USER, NL, A, B, END, NL, START, ASSISTANT, NL]
"""What CHATML makes of the user's "a b" and the header of the reply."""


def tokenise(row, tokenizer=None, length=64, prompt_length=None, truncation="keep-end"):
    tokenizer = tokenizer or fx.word_tokenizer()
    tokeniser = PairTokeniser(tokenizer, length, prompt_length, truncation=truncation)
    packed, report = tokeniser([parse_pair(row, 5, "p.jsonl, line 5")])
    pairs = TokenisedPairs(packed.tokens, packed.index)
    sides = [(p.prompt.tolist(), p.chosen.tolist(), p.rejected.tolist()) for p in pairs]
    return sides[0] if sides else None, report


def talk(prompt="a b", chosen="c", rejected="d e", **more):
    return {
        "prompt": [user(prompt)],
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
    } | more


def test_conversation_golden():
    sides, report = tokenise(talk())
    assert sides == (ASK, [C, END, NL], [D, E, END, NL])
    assert (report.read, report.kept, report.issues) == (1, 1, {})
    assert (report.prompt_tokens, report.chosen_tokens, report.rejected_tokens) == (10, 3, 4)
    assert (report.longest, report.tokens) == (14, 17)


def test_implicit_conversation_is_the_same():
    row = {
        "chosen": [user("a b"), assistant("c")],
        "rejected": [user("a b"), assistant("d e")],
    }
    assert tokenise(row)[0] == tokenise(talk())[0]


def test_replies_with_a_common_beginning_keep_it_as_completion():
    sides, _ = tokenise(talk(chosen="c d", rejected="c e"))
    assert sides == (ASK, [C, D, END, NL], [C, E, END, NL])


def test_text_golden():
    row = {"prompt": "a b", "chosen": " c", "rejected": " d e"}
    assert tokenise(row)[0] == ([A, B], [C, EOS], [D, E, EOS])


def test_implicit_text_shares_the_common_tokens():
    sides, report = tokenise({"chosen": "a b a b c", "rejected": "a b a b d e"})
    assert sides == ([A, B, A, B], [C, EOS], [D, E, EOS])
    assert report.issues == {"implicit": 1}
    shorter = {"chosen": "a b a b", "rejected": "a b a b c"}
    assert tokenise(shorter)[0] == ([A, B, A, B], [EOS], [C, EOS])


@pytest.mark.parametrize(("shared", "issue"), [("a b a ", "short_prompt"), ("", "no_prompt")])
def test_a_few_shared_words_are_no_prompt(shared, issue):
    sides, report = tokenise({"chosen": f"{shared}c", "rejected": f"{shared}d"})
    assert (sides, report.issues) == (None, {issue: 1})


def test_eos_is_written_once_and_not_invented():
    row = {"prompt": "a b", "chosen": " c </s>", "rejected": " d"}
    assert tokenise(row)[0] == ([A, B], [C, EOS], [D, EOS])
    assert tokenise(row, fx.word_tokenizer(eos=None))[0] == ([A, B], [C, EOS], [D])


def test_bos_is_never_doubled():
    with_bos = fx.word_tokenizer(fx.WITH_BOS, bos=True)
    assert tokenise(talk(), with_bos)[0] == ([BOS, *ASK], [C, END, NL], [D, E, END, NL])
    text = {"prompt": "a b", "chosen": " c", "rejected": " d"}
    assert tokenise(text, with_bos)[0] == ([BOS, A, B], [C, EOS], [D, EOS])
    spelt = {"prompt": "<s> a b", "chosen": " c", "rejected": " d"}
    assert tokenise(spelt, with_bos)[0] == ([BOS, A, B], [C, EOS], [D, EOS])


def test_thinking_template_is_counted_and_shares_what_it_can():
    sides, report = tokenise(talk(), fx.word_tokenizer(fx.THINKING))
    assert sides == (ASK, [C, END, NL], [D, E, END, NL])
    assert report.issues == {"not_prefix": 1}
    assert report.examples == {"not_prefix": ["p.jsonl, line 5"]}


def test_shared_prompt_is_the_minimum_over_both_sides():
    # One reply happens to begin as the generation prompt ends; the other doesn't.
    thinking = fx.word_tokenizer(fx.THINKING)
    sides, report = tokenise(talk(rejected="<think> d"), thinking)
    assert sides == (ASK, [C, END, NL], [fx.THINK, D, END, NL])
    assert report.issues == {"not_prefix": 1}
    sides, report = tokenise(talk(chosen="<think> c"), thinking)
    assert sides == (ASK, [fx.THINK, C, END, NL], [D, E, END, NL])
    assert report.issues == {"not_prefix": 1}
    sides, report = tokenise(talk(chosen="<think> c", rejected="<think> d"), thinking)
    assert sides == ([*ASK, fx.THINK], [C, END, NL], [D, END, NL])
    assert report.issues == {}


def test_a_token_across_the_boundary_belongs_to_the_completion():
    tokenizer = fx.byte_tokenizer()
    a, b, ab, c = (tokenizer.convert_tokens_to_ids(t) for t in ("a", "b", "ab", "c"))
    eos = tokenizer.eos_token_id
    row = {"prompt": "ca", "chosen": "b", "rejected": "c"}
    sides, report = tokenise(row, tokenizer)
    assert sides == ([c], [ab, eos], [a, c, eos])
    assert report.issues == {"not_prefix": 1}
    assert b not in sides[1]


def test_tools_and_kwargs_reach_the_template():
    sides, _ = tokenise(talk(tools=[{"name": "f"}]))
    assert sides[0][0] == TOOLS
    template = "{% if shout %}f {% endif %}" + fx.CHATML
    sides, _ = tokenise(talk(chat_template_kwargs={"shout": True}), fx.word_tokenizer(template))
    assert sides == ([fx.F, *ASK], [C, END, NL], [D, E, END, NL])


def test_kwargs_cannot_change_how_rows_are_rendered():
    sides, _ = tokenise(
        talk(chat_template_kwargs={"add_generation_prompt": True, "tokenize": True})
    )
    assert sides == (ASK, [C, END, NL], [D, E, END, NL])


def test_messages_need_a_template():
    with pytest.raises(DataError, match=r"line 5: found messages, but the tokenizer has no chat"):
        tokenise(talk(), fx.word_tokenizer(None))


def test_a_template_that_refuses_names_the_row():
    picky = fx.word_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match=r"line 5: .*refuses.*roles must alternate"):
        tokenise(talk(), picky)


def test_text_that_is_no_unicode_names_the_row():
    with pytest.raises(DataError, match=r"line 5: the text is not valid Unicode.*surrogates"):
        tokenise({"prompt": "a", "chosen": "\ud800", "rejected": "b"})


@pytest.mark.parametrize(
    ("row", "issue"),
    [
        (talk(chosen="c", rejected="c"), "identical"),
        (talk(chosen="c ", rejected="c"), "identical"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "no_prompt"),
        ({"chosen": [assistant("a")], "rejected": [assistant("b")]}, "no_prompt"),
    ],
)
def test_rows_that_cannot_be_used_are_dropped_and_counted(row, issue):
    sides, report = tokenise(row)
    assert sides is None
    assert (report.kept, report.dropped, report.issues) == (0, 1, {issue: 1})


def test_a_completion_without_any_token_is_dropped():
    row = {"prompt": "a b", "chosen": "", "rejected": " c"}
    sides, report = tokenise(row, fx.word_tokenizer(eos=None))
    assert (sides, report.issues) == (None, {"empty": 1})


def test_an_empty_reply_with_an_end_of_turn_is_kept():
    assert tokenise(talk(chosen=""))[0] == (ASK, [END, NL], [D, E, END, NL])


def test_long_prompt_is_cut_from_its_left_for_both_sides():
    sides, report = tokenise(talk(), length=12)
    # Longest completion 4 of 12: the prompt keeps its last 8 of 10.
    assert sides == (ASK[2:], [C, END, NL], [D, E, END, NL])
    assert report.issues == {"prompt_cut": 1}


def test_a_cut_prompt_keeps_its_bos():
    sides, _ = tokenise(talk(), fx.word_tokenizer(fx.WITH_BOS), length=12)
    assert sides[0] == [BOS, *ASK[3:]]


def test_long_completion_keeps_its_end_of_turn():
    sides, report = tokenise(talk(chosen="a b c d e f a b"), length=12)
    # The prompt gives way to half of the budget, 6; of 10 completion tokens 6 are left.
    assert sides == (ASK[4:], [A, B, C, D, END, NL], [D, E, END, NL])
    assert report.issues == {"prompt_cut": 1, "completion_cut": 1}


LONG = talk(chosen="a b c d e f a b")
"""A reply of ten tokens, six of which fit beside half a budget of twelve for the prompt."""


def test_a_cut_completion_may_stay_open():
    sides, report = tokenise(LONG, length=12, truncation="cut")
    assert sides == (ASK[4:], [A, B, C, D, E, fx.F], [D, E, END, NL])
    assert report.issues == {"prompt_cut": 1, "completion_open": 1}


def test_a_pair_may_have_to_be_whole():
    sides, report = tokenise(LONG, length=12, truncation="drop")
    assert (sides, report.issues, report.dropped) == (None, {"too_long": 1}, 1)
    rejected = talk(chosen="c", rejected="a b c d e f a b")
    assert tokenise(rejected, length=12, truncation="drop")[1].issues == {"too_long": 1}


@pytest.mark.parametrize("truncation", ["drop", "cut", "keep-end"])
def test_what_fits_is_the_same_under_every_truncation(truncation):
    sides, report = tokenise(talk(), length=14, truncation=truncation)
    assert sides == (ASK, [C, END, NL], [D, E, END, NL])
    assert report.issues == {}


def test_a_prompt_is_cut_under_every_truncation():
    for truncation in ("drop", "cut"):
        sides, report = tokenise(talk(), length=12, truncation=truncation)
        assert sides == (ASK[2:], [C, END, NL], [D, E, END, NL])
        assert report.issues == {"prompt_cut": 1}


def test_an_explicit_prompt_budget_is_a_cap():
    sides, report = tokenise(talk(), prompt_length=3)
    assert sides[0] == ASK[-3:]
    assert report.issues == {"prompt_cut": 1}


def test_rows_that_a_cut_would_empty_or_make_alike_are_dropped():
    sides, report = tokenise(talk(chosen="a b c", rejected="d e f"), length=10, prompt_length=8)
    assert (sides, report.issues) == (None, {"no_room": 1})
    sides, report = tokenise(talk(chosen="a b c", rejected="a b d"), length=10, prompt_length=6)
    assert (sides, report.issues) == (None, {"identical": 1})


def test_budgets_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="max_prompt_length is 8, expected less than"):
        Budget(8, 8)


def test_cut_completion_without_an_end_is_a_plain_cut():
    assert Budget(8, ends=frozenset({9})).cut_completion([1, 2, 3, 4], 2) == [1, 2]
    early_end = [1, 9, *range(10, 30)]
    assert Budget(8, ends=frozenset({9})).cut_completion(early_end, 3) == [1, 9, 10]


def test_common_prefix():
    assert common_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert common_prefix([1, 2], [1, 2, 4]) == 2
    assert common_prefix([], [1]) == 0


def test_ids_are_int32_and_text_is_not_edited():
    row = {"prompt": "a  b\n\n", "chosen": "  ab", "rejected": "c"}
    sides, _ = tokenise(row)
    assert sides == ([A, B, NL, NL], [AB, EOS], [C, EOS])
    tokenizer = fx.byte_tokenizer()
    packed, _ = PairTokeniser(tokenizer, 64)([parse_pair(row, 1, "")])
    pair = TokenisedPairs(packed.tokens, packed.index)[0]
    assert pair.chosen.dtype == np.int32
    assert tokenizer.decode(pair.prompt) == "a  b\n\n"
    assert tokenizer.decode(pair.chosen) == "  ab</s>"

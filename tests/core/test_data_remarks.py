"""Whatever a row has and the tokens lack is told, and refused where rows must not change."""

import json

import pytest

from fpo_core.config import DataConfig
from fpo_core.data.load import load_data
from fpo_core.data.sources import read_pairs
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenise import PairTokeniser
from fpo_core.errors import ConfigError, DataError
from fpo_core.pairs.pair import parse_pair
from tests.core import data_fixtures as fx
from tests.core.data_fixtures import END, EOS, NL, A, B, C, D, E, F, assistant, user, write_jsonl

WITH_TOOLS = fx.CHATML.replace(
    "{{ m.content }}",
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %} {{ c.name }}{% endfor %}",
)
CALL = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
DATED = "{% set today = strftime_now('%d') %}{{ 'a ' if today == '26' else 'b ' }}" + fx.CHATML
TEXT = {"prompt": "a b", "chosen": " c", "rejected": " d"}


def talk(prompt="a b", chosen="c", rejected="d e", **more):
    return {
        "prompt": [user(prompt)],
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
    } | more


def tokenise(row, template=fx.CHATML, **settings):
    tokeniser = PairTokeniser(fx.word_tokenizer(template), 64, **settings)
    packed, report = tokeniser([parse_pair(row, 5, "line 5")])
    pairs = TokenisedPairs(packed.tokens, packed.index)
    return [[s.tolist() for s in (p.prompt, p.chosen, p.rejected)] for p in pairs], report


@pytest.fixture
def load(tmp_path):
    def run(rows, template=fx.CHATML, **settings):
        data = write_jsonl(tmp_path / "p.jsonl", rows)
        config = DataConfig(data=str(data), cache=str(tmp_path / "cache"), **settings)
        return load_data(config, fx.word_tokenizer(template), workers=1).report

    return run


TOOLS = [{"type": "function", "name": "f"}]
SCORES = {"score_chosen": 1.0, "score_rejected": 2.5}


@pytest.mark.parametrize(
    ("row", "issue", "about"),
    [
        (talk() | {"chosen": [CALL]}, "not_rendered", "line 5: tool_calls"),
        (talk(tools=TOOLS), "not_rendered", "line 5: tools"),
        (
            talk() | {"prompt": [{"role": "user", "content": "a", "name": "f"}]},
            "not_rendered",
            "line 5: name",
        ),
        (talk(chosen=""), "blank", "line 5"),
        (talk(chosen=" \n"), "blank", "line 5"),
        (TEXT | {"chosen": "  "}, "blank", "line 5"),
        (talk(chosen="c <|im_end|>\n"), "ended", "line 5"),
        (talk(**SCORES), "contradicted", "line 5: score_chosen 1.0, score_rejected 2.5"),
        (talk(**{"chosen-rating": 1, "rejected-rating": 2}), "contradicted", None),
        (TEXT | {"context": "f"}, "unread", "line 5: context"),
        (TEXT | {"question": "f"}, "unread", "line 5: question"),
        (
            talk() | {"chosen": [assistant("c"), user("a"), assistant("b")]},
            "later_turns",
            "line 5",
        ),
    ],
)
def test_a_kept_row_tells_what_is_odd(row, issue, about):
    template = "{% if false %}{{ m.tools }}{% endif %}" + fx.CHATML.partition("{% endif %}")[2]
    _, report = tokenise(row, template)
    assert (report.kept, report.issues) == (1, {issue: 1})
    assert about is None or report.examples == {issue: [about]}


def test_what_the_template_writes_is_no_loss():
    (sides,), report = tokenise(talk(tools=[{"name": "f"}]) | {"chosen": [CALL]}, WITH_TOOLS)
    assert sides[1:] == [[F, END, NL], [D, E, END, NL]]
    assert report.issues == {}


def test_a_template_that_drops_a_message_is_told():
    silent = "{% for m in messages if m.role != 'system' %}" + fx.CHATML.partition("messages %}")[2]
    row = talk() | {"prompt": [{"role": "system", "content": "f"}, user("a b")]}
    (sides,), report = tokenise(row, silent)
    assert F not in sides[0]
    assert report.examples == {"not_rendered": ["line 5: content of system"]}


@pytest.mark.parametrize("end", ["<|im_end|>", " <|im_end|> \n", "</s>", "<|im_end|> <|im_end|>"])
def test_an_end_of_turn_is_written_once(end):
    assert tokenise(talk(chosen=f"c{end}"))[0] == tokenise(talk())[0]


@pytest.mark.parametrize(
    ("end", "ids"),
    [(" <|im_end|>", [END]), (" </s> \n", [EOS, NL]), (" <|im_end|> a", [END, A, EOS])],
)
def test_a_text_that_ends_its_turn_gets_no_second_end(end, ids):
    (sides,), _ = tokenise(TEXT | {"chosen": f" c{end}"})
    assert sides[1] == [C, *ids]


def test_parts_of_text_are_the_joined_text():
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    assert tokenise(talk(prompt=parts)) == tokenise(talk(prompt="a b"))


def test_messages_written_as_json_are_messages():
    row = {name: json.dumps(value) for name, value in talk().items()}
    assert tokenise(row) == tokenise(talk())
    reply = '{"role": "a"}'
    assert parse_pair(TEXT | {"chosen": reply}, 1, "").chosen == reply


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (talk(prompt=[{"type": "image_url", "image_url": "x"}]), "prompt has a part of type image"),
        (talk() | {"chosen": [{"role": "assistant"}]}, "keys role, expected role and content"),
        (talk(chosen=None), r"keys role, content \(null\), expected role and content"),
        (talk(chosen=3), "keys role, content, expected role and content, both text"),
        (talk() | {"chosen": str([assistant("c")])}, "chosen is text that spells messages but is"),
        (talk(images=["x"]), "column images holds a list, expected text"),
        (
            {"prompt": "f", "chosen": [user("a"), assistant("b")], "rejected": [user("a"), CALL]},
            "prompt is text that the messages of chosen and rejected do not repeat",
        ),
        (TEXT | {"system": 3}, "system is a number, expected text"),
        (talk(system="e") | {"prompt": [{"role": "system", "content": "f"}]}, "system differs"),
        (TEXT | {"prompt": None, "system": "f"}, "found a system text and no prompt"),
        (
            {"instruction": "a", "input": [user("b")], "chosen": "c", "rejected": "d"},
            "input is a list beside a prompt that is text",
        ),
        (
            {"instruction": "a", "history": ["b"], "chosen": "c", "rejected": "d"},
            r"history is a list, expected a list of \[question, answer\]",
        ),
    ],
)
def test_a_row_that_cannot_be_read_whole_is_refused(row, message):
    with pytest.raises(DataError, match=r"^line 5: .*" + message):
        parse_pair(row, 5, "line 5")


@pytest.mark.parametrize("beside", [[], [{"role": "system", "content": "f"}]])
def test_a_text_prompt_beside_replies_is_the_users_turn(beside):
    row = {
        "prompt": "a b",
        "chosen": [*beside, assistant("c")],
        "rejected": [*beside, assistant("d")],
    }
    assert parse_pair(row, 1, "").split() == (
        [*beside, user("a b")],
        [assistant("c")],
        [assistant("d")],
    )


def test_texts_under_messages_are_replies():
    assert parse_pair(talk() | {"chosen": "c", "rejected": "d e"}, 1, "") == parse_pair(
        talk(), 1, ""
    )


def test_a_dialogue_stays_text_where_no_template_reads_it():
    row = {"chosen": "\n\nHuman: a b\n\nAssistant: c", "rejected": "\n\nHuman: a b\n\nAssistant: d"}
    pair = parse_pair(row, 1, "")
    assert pair.split() == ([user("a b")], [assistant("c")], [assistant("d")])
    assert pair.as_text().split() == ("\n\nHuman: a b\n\nAssistant:", " c", " d")
    assert len(tokenise(row, None)[0]) == 1


def test_a_prompt_of_special_tokens_alone_is_none():
    _, report = tokenise({"prompt": "<s>", "chosen": " c", "rejected": " d"})
    assert report.issues == {"no_prompt": 1}
    _, report = tokenise(talk(prompt=" "))
    assert report.issues == {"no_prompt": 1}


def test_replies_of_equal_rank_are_dropped():
    replies = [{"response": text, "overall_score": 4.0} for text in (" c", " d")]
    sides, report = tokenise({"instruction": "a b", "completions": replies})
    assert (sides, report.issues) == ([], {"tied": 1})


def test_columns_that_are_not_read_are_named(load):
    report = load([talk(source="x", notes=""), talk(prompt="b a", source="x", notes="y")])
    assert report.splits["train"].problems() == []
    assert report.lines()[1] == "  columns not read: source, notes (1 rows)"


def test_rows_that_contradict_each_other_are_told(load):
    opposite = talk(chosen="d e", rejected="c")
    report = load([talk(), talk(prompt="b"), opposite])
    assert report.splits["train"].issues == {"conflicting": 2}
    assert report.splits["train"].examples == {"conflicting": ["row 1", "row 3"]}
    with pytest.raises(DataError, match=r"2 × another row prefers the opposite \(row 1; row 3\)"):
        load([talk(), talk(prompt="b"), opposite], strict=True)


def test_a_mixture_of_texts_and_conversations_is_told(load):
    with pytest.raises(DataError, match="a mixture: 2 conversations and 1 texts"):
        load([talk(), talk(prompt="b"), TEXT], strict=True)


def test_columns_are_mapped_and_checked(load):
    row = {"q": "a b", "sys": "f", "chosen": " c", "rejected": " d"}
    report = load([row], columns="prompt=q,system=sys")
    assert report.splits["train"].kinds == {"conversations": 1}
    assert load([row], columns="prompt=q").splits["train"].ignored == {"sys": 1}
    with pytest.raises(DataError, match=r"maps prompt to 'x', which is not there; found q, sys"):
        load([row], columns="prompt=x")
    with pytest.raises(DataError, match=r"1 × a column that columns names is not.*line 1: x"):
        load([row], columns="prompt=q,system=x", strict=True)
    for columns in ("question=q", "prompt"):
        with pytest.raises(ConfigError, match=r"expected NAME=COLUMN, where NAME is one of prompt"):
            DataConfig(data="x", columns=columns)


def test_a_column_of_the_prompt_can_be_left_out():
    row = {"prompt": "f", "chosen": [user("a"), assistant("b")], "rejected": [user("a"), CALL]}
    pair = parse_pair(row, 1, "", DataConfig(data="x", columns="prompt=").column_names())
    assert (pair.split()[0], pair.ignored) == ([user("a")], ("prompt",))


def test_a_template_that_writes_today_writes_one_date(load):
    (fixed,), _ = tokenise(talk(), DATED)
    (other,), _ = tokenise(talk(), DATED, date="2024-07-27")
    assert (fixed[0][0], other[0][0]) == (A, B)
    assert not load([talk()], DATED).cached
    assert load([talk()], DATED, template_date="2024-07-26").cached
    assert not load([talk()], DATED, template_date="2024-07-27").cached
    with pytest.raises(ConfigError, match="template_date is 'today', expected a date such as"):
        DataConfig(data="x", template_date="today")


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("someone/pairs:en", ("someone/pairs", "en", None)),
        ("someone/pairs@v2", ("someone/pairs", None, "v2")),
        ("someone/pairs:en@v2", ("someone/pairs", "en", "v2")),
    ],
)
def test_a_hub_name_holds_configuration_and_revision(monkeypatch, name, asked):
    import datasets

    calls = []

    def load_dataset(*names, revision):
        calls.append((*names, revision))
        return datasets.DatasetDict({"train": datasets.Dataset.from_list([talk()])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    read_pairs(DataConfig(data=name))
    assert calls == [asked]


@pytest.mark.parametrize(
    "error",
    [
        "Config name is missing.\nPlease pick one among the available configs: ['en', 'zh']\nEx",
        "BuilderConfig 'x' not found. Available: ['en', 'zh']",
    ],
)
def test_configurations_of_a_hub_name_are_listed(monkeypatch, error):
    import datasets

    def load_dataset(*names, revision):
        raise ValueError(error)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"^someone/pairs has the configurations en, zh, expected"):
        read_pairs(DataConfig(data="someone/pairs"))

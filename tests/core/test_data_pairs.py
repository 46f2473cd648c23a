import json

import pyarrow
import pytest
from pyarrow import parquet

from fpo_core.config import DataConfig
from fpo_core.data.sources import read_pairs
from fpo_core.data.splits import Part, in_holdout
from fpo_core.errors import DataError
from fpo_core.pairs.pair import parse_pair
from tests.core.data_fixtures import assistant, user, write_jsonl

ROW = {"prompt": "a", "chosen": " b", "rejected": " c"}
TALK = {"prompt": [user("a")], "chosen": [assistant("b")], "rejected": [assistant("c")]}


def read(path, split="train"):
    return list(read_pairs(DataConfig(data=str(path)))[split])


def test_jsonl_json_and_parquet_hold_the_same_pairs(tmp_path):
    rows = [ROW, ROW | {"chosen": " d  e\n"}]
    write_jsonl(tmp_path / "p.jsonl", rows)
    (tmp_path / "p.json").write_text(json.dumps(rows))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    for name in ("p.jsonl", "p.json", "lines.json", "p.parquet"):
        pairs = read(tmp_path / name)
        assert [(p.prompt, p.chosen, p.rejected, p.row) for p in pairs] == [
            ("a", " b", " c", 1),
            ("a", " d  e\n", " c", 2),
        ], name


def test_jsonl_is_streamed_and_blank_lines_keep_line_numbers(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps(ROW) + "\nnot json\n")
    rows = iter(read_pairs(DataConfig(data=str(path)))["train"])
    assert [next(rows).where, next(rows).where] == ["p.jsonl, line 1", "p.jsonl, line 3"]
    with pytest.raises(DataError, match=r"line 4: not valid JSON"):
        next(rows)


def test_nulls_that_arrow_fills_in_are_left_out(tmp_path):
    rows = [
        TALK,
        TALK | {"chosen": [assistant("b") | {"tool_calls": [{"name": "f", "x": 1}]}]},
        TALK | {"chosen": [assistant("b") | {"tool_calls": [{"name": "g", "y": None}]}]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "p.parquet")
    first, second, third = read(tmp_path / "p.parquet")
    assert first.chosen == [assistant("b")]
    assert second.chosen[0]["tool_calls"] == [{"name": "f", "x": 1}]
    assert third.chosen[0]["tool_calls"] == [{"name": "g"}]


def test_folder_finds_its_splits(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", [ROW])
    write_jsonl(tmp_path / "test.jsonl", [ROW | {"prompt": "test"}])
    assert read(tmp_path, "valid")[0].prompt == "test"
    write_jsonl(tmp_path / "validation.jsonl", [ROW | {"prompt": "validation"}])
    assert read(tmp_path, "valid")[0].prompt == "validation"


def test_shards_follow_each_other(tmp_path):
    write_jsonl(tmp_path / "train-00001-of-00002.jsonl", [ROW | {"prompt": "second"}])
    write_jsonl(tmp_path / "train-00000-of-00002.jsonl", [ROW | {"prompt": "first"}])
    write_jsonl(tmp_path / "training_notes.jsonl", [ROW | {"prompt": "other"}])
    assert [pair.prompt for pair in read(tmp_path)] == ["first", "second"]


def test_hub_name_goes_through_datasets(monkeypatch):
    import datasets

    split = datasets.Dataset.from_list([TALK, TALK | {"score": 1}])
    asked = []

    def load_dataset(*name, revision):
        asked.append((*name, revision))
        return datasets.DatasetDict({"train_prefs": split, "test_prefs": split, "train_sft": split})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = read_pairs(DataConfig(data="someone/pairs"))
    assert asked == [("someone/pairs", None, None)]
    assert sorted(found) == ["train", "valid"]
    assert [pair.chosen for pair in found["train"]] == [[assistant("b")]] * 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionError("no network\nlong trace"),
            r"^someone/pairs is not on this machine.*network$",
        ),
        (RuntimeError("odd\nlong trace"), r"'someone/pairs'.*hub: odd$"),
    ],
)
def test_hub_failure_is_one_sentence(monkeypatch, error, said):
    import datasets

    def load_dataset(*name, revision):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=said):
        read_pairs(DataConfig(data="someone/pairs"))


def test_missing_file_and_folder_without_train(tmp_path):
    for name in ("nowhere.jsonl", "./nowhere", str(tmp_path / "nowhere"), "tests/nowhere"):
        with pytest.raises(DataError, match=r"nowhere.*no file or folder"):
            read_pairs(DataConfig(data=name))
    write_jsonl(tmp_path / "pairs.jsonl", [ROW])
    with pytest.raises(DataError, match=r"holds pairs\.jsonl, expected train\.jsonl"):
        read_pairs(DataConfig(data=str(tmp_path)))
    (tmp_path / "p.csv").write_text("prompt,chosen\n")
    with pytest.raises(DataError, match=r"ends in '\.csv', expected one of \.jsonl"):
        read_pairs(DataConfig(data=str(tmp_path / "p.csv")))


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "p.parquet").write_text("something else, longer than a footer")
    with pytest.raises(DataError, match=r"p\.parquet is not a readable Parquet file"):
        read(tmp_path / "p.parquet")


def test_a_file_that_is_no_utf8(tmp_path):
    (tmp_path / "p.jsonl").write_bytes('{"chosen": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        read(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "winner": "b"}, r"no column 'chosen'; found prompt, winner; expected"),
        ({"chosen": "a"}, r"no column 'rejected'; found chosen"),
        (["a"], r"found a list, expected an object"),
        (ROW | {"chosen": None}, r"chosen is null, expected text or a list of messages"),
        (ROW | {"chosen": 3}, r"chosen is a number"),
        (ROW | {"prompt": 3}, r"prompt is a number"),
        (ROW | {"chosen": [assistant("b")]}, r"chosen is a list and rejected text"),
        (TALK | {"chosen": []}, r"chosen has no messages"),
        (
            TALK | {"chosen": [{"speaker": "gpt", "text": "b"}]},
            r"keys speaker, text, expected role",
        ),
        (TALK | {"tools": "{"}, r"tools is not valid JSON"),
        (TALK | {"chat_template_kwargs": "[]"}, r"kwargs is a list, expected an object"),
    ],
)
def test_a_wrong_row_is_named_with_what_was_found(row, message):
    with pytest.raises(DataError, match=r"^p\.jsonl, line 7: .*" + message):
        parse_pair(row, 7, "p.jsonl, line 7")


def test_tools_and_kwargs_may_be_written_out():
    pair = parse_pair(
        TALK | {"tools": '[{"name": "f"}]', "chat_template_kwargs": '{"x": 1}'}, 1, ""
    )
    assert pair.tools == [{"name": "f"}]
    assert pair.chat_template_kwargs == {"x": 1}


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("a b c", "a b d", ("a b ", "c", "d")),
        ("a b", "a b c", ("a b", "", " c")),
        ("x", "y", ("", "x", "y")),
        (
            [user("q"), assistant("x")],
            [user("q"), assistant("y")],
            ([user("q")], [assistant("x")], [assistant("y")]),
        ),
        (
            [user("q"), assistant("x")],
            [user("q"), assistant("x"), user("r")],
            ([user("q")], [assistant("x")], [assistant("x"), user("r")]),
        ),
    ],
)
def test_implicit_prompt_is_the_longest_common_beginning(chosen, rejected, expected):
    assert parse_pair({"chosen": chosen, "rejected": rejected}, 1, "").split() == expected


def test_a_text_prompt_gives_way_to_conversations_that_repeat_it():
    row = {
        "prompt": "q",
        "chosen": [user("q"), assistant("x")],
        "rejected": [user("q"), assistant("y")],
    }
    assert parse_pair(row, 1, "").split()[0] == [user("q")]


def pairs_of(prompts):
    return [parse_pair(ROW | {"prompt": prompt}, i, "") for i, prompt in enumerate(prompts)]


def test_holdout_keeps_prompts_together_and_rows_in_place():
    pairs = pairs_of([f"prompt {i // 3}" for i in range(3000)])
    held = {p.prompt for p in Part(pairs, 0.2, 1, held_out=True)}
    kept = {p.prompt for p in Part(pairs, 0.2, 1, held_out=False)}
    assert not held & kept
    assert len(held) + len(kept) == 1000
    assert 150 < len(held) < 250
    before = {p.prompt for p in Part(pairs[:900], 0.2, 1, held_out=True)}
    assert before == held & {p.prompt for p in pairs[:900]}
    assert held != {p.prompt for p in Part(pairs, 0.2, 2, held_out=True)}


def test_holdout_grows_with_the_fraction():
    pairs = pairs_of([str(i) for i in range(200)])
    small = {p.prompt for p in pairs if in_holdout(p, 0.1, 0)}
    assert small < {p.prompt for p in pairs if in_holdout(p, 0.3, 0)}


def test_limit_takes_the_first():
    assert [p.prompt for p in Part(pairs_of("abc"), limit=2)] == ["a", "b"]

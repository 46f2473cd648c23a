"""Files of others: regular, small and flat enough, or one sentence about what they are."""

import json
import os

import pytest

from fpo_core.errors import ConfigError
from fpo_core.io.regular import (
    MAX_DEPTH,
    parse_json,
    read_json,
    read_json_object,
    read_text,
    read_yaml,
)


def refused(read, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        read(*arguments, ConfigError, **options)
    return str(caught.value)


def test_what_is_no_regular_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert "it is a FIFO" in refused(read_text, tmp_path / "fifo")
    assert "it is a folder" in refused(read_text, tmp_path / "folder")
    assert "No such file" in refused(read_text, tmp_path / "absent")
    link = tmp_path / "link"
    link.symlink_to("/dev/zero")
    assert "it is a device" in refused(read_json, link)


def test_a_link_to_a_regular_file_is_one(tmp_path):
    (tmp_path / "file").write_text("[1]")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_json(tmp_path / "link", ConfigError) == [1]


def test_size_and_encoding_have_limits(tmp_path):
    path = tmp_path / "file"
    path.write_text("x" * 11)
    assert read_text(path, ConfigError, limit=11) == "x" * 11
    assert "expected a small text file" in refused(read_text, path, limit=10)
    path.write_bytes(b"ab\xff")
    assert "not UTF-8 text (invalid start byte at byte 2)" in refused(read_text, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "nests deeper than 50 levels"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nests deeper than 50 levels"),
        ('{"a": ' * 60 + "1" + "}" * 60, "nests deeper than 50 levels"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        ("1" * 10_000, "is not JSON"),
    ],
)
def test_bad_json_is_one_line(text, words):
    message = refused(parse_json, text, "config.json")
    assert message.startswith("config.json ")
    assert words in message
    assert "\n" not in message


def test_fifty_levels_pass(tmp_path):
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text, "x", ConfigError)) == text


def test_an_object_is_expected_where_one_is_asked_for(tmp_path):
    path = tmp_path / "file"
    path.write_text("[1]")
    assert "is list in JSON, expected an object" in refused(read_json_object, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("[" * 2000, "nests deeper"),
        ("&a [*a]", "nests deeper"),
        ("x: !!python/object/apply:os.system [ls]", "is not YAML"),
        ("x: \x00", "is not YAML"),
        ("a: 1\nb: {c: 1, c: 2}", "the key 'c' occurs twice"),
        ("!!map [a]", "is not YAML"),
    ],
)
def test_bad_yaml_is_one_line(tmp_path, text, words):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    message = refused(read_yaml, path)
    assert words in message
    assert "\n" not in message


def test_a_billion_aliases_are_looked_at_once(tmp_path):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    path = tmp_path / "file.yaml"
    path.write_text("\n".join(lines))
    assert len(read_yaml(path, ConfigError)) == 40

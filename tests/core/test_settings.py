"""How settings read their values, and what they say when they cannot."""

from dataclasses import dataclass
from typing import Literal

import pytest

from fpo_core.config.fields import Settings, setting
from fpo_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Kitchen(Settings):
    rate: float = setting(0.5, help="A rate.", above=0.0, most=1.0)
    cooks: int = setting(2, help="A number.", least=1)
    hot: bool = setting(False, help="A switch.")
    mode: Literal["fry", "boil"] = setting("fry", help="A choice.")
    tools: tuple[str, ...] | None = setting(None, help="A list.")
    limit: float | None = setting(None, help="A number or nothing.", least=0.0)
    name: str = setting("x", help="A text.")


@dataclass(frozen=True, kw_only=True)
class House(Kitchen):
    street: str = setting(help="Needed.")
    rooms: int = setting(3, help="A number.")

    def check(self):
        if self.rooms == 13:
            raise ConfigError("rooms is 13, expected another")


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("rate", "5e-7", 5e-7),
        ("rate", 1, 1.0),
        ("cooks", "3", 3),
        ("cooks", 4.0, 4),
        ("hot", True, True),
        ("mode", "boil", "boil"),
        ("tools", "pan,pot", ("pan", "pot")),
        ("tools", ["pan"], ("pan",)),
        ("tools", None, None),
        ("limit", "2", 2.0),
        ("limit", None, None),
    ],
)
def test_values_are_read_as_the_field_says(key, value, read):
    found = getattr(Kitchen.from_mapping({key: value}), key)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rate", "fast", "rate is 'fast', expected a number"),
        ("rate", 0, "rate is 0.0, expected more than 0"),
        ("rate", 1.5, "rate is 1.5, expected at most 1"),
        ("rate", "nan", "rate is 'nan', expected a number"),
        ("rate", float("inf"), "rate is inf, expected a number"),
        ("rate", True, "rate is True, expected a number"),
        ("rate", None, "rate is None, expected a number"),
        ("cooks", 2.5, "cooks is 2.5, expected a whole number"),
        ("cooks", 0, "cooks is 0, expected at least 1"),
        ("cooks", [1], r"cooks is \[1\], expected a whole number"),
        ("hot", "yes", "hot is 'yes', expected true or false"),
        ("hot", 1, "hot is 1, expected true or false"),
        ("mode", "bake", "mode is 'bake', expected one of 'fry', 'boil'"),
        ("tools", [1, 2], r"tools is \[1, 2\], expected a list of texts or nothing"),
        ("limit", -1, "limit is -1.0, expected at least 0"),
        ("limit", "much", "limit is 'much', expected a number or nothing"),
        ("name", 5, "name is 5, expected text"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(key, value, said):
    with pytest.raises(ConfigError, match=said):
        Kitchen.from_mapping({key: value})


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"my\.yaml has an unknown key 'coks'; .*'cooks'"):
        Kitchen.from_mapping({"coks": 2}, "my.yaml")
    with pytest.raises(ConfigError, match="the known keys are rate, cooks, hot"):
        Kitchen.from_mapping({"zzzzzz": 2})


def test_dashes_stand_for_underscores_and_bad_keys_are_not_a_crash():
    @dataclass(frozen=True, kw_only=True)
    class Long(Settings):
        long_name: int = setting(1, help="A number.")

    assert Long.from_mapping({"long-name": 5}).long_name == 5
    with pytest.raises(ConfigError, match="unknown key 7"):
        Long.from_mapping({7: 1})


def test_a_needed_setting_is_asked_for_by_name_and_source():
    with pytest.raises(ConfigError, match=r"street is not set, expected a value for it in a\.yaml"):
        House.from_mapping({}, "a.yaml")
    with pytest.raises(ConfigError, match="street is not set"):
        House.from_mapping({"street": None})


def test_groups_combine_check_and_come_apart():
    house = House.from_mapping({"street": "High", "cooks": 5})
    assert house.only(Kitchen) == Kitchen(cooks=5)
    assert House.names()[0] == "rate"
    with pytest.raises(ConfigError, match="rooms is 13"):
        House.from_mapping({"street": "High", "rooms": 13})


def test_settings_survive_a_mapping():
    house = House(street="High", tools=("pan", "pot"), rate=1e-3)
    assert house.to_mapping()["tools"] == ["pan", "pot"]
    assert House.from_mapping(house.to_mapping()) == house

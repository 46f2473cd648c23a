"""The settings of the commands: every default is legal, and contradictions are refused."""

import dataclasses

import pytest

from fpo_core import config
from fpo_core.config import AdapterConfig, LoopConfig, ObjectiveConfig, TrainConfig
from fpo_core.config.fields import Settings
from fpo_core.errors import ConfigError

NEEDED = {"model": "m", "data": "d", "output": "o", "sae": "s"}
NEEDED_ELSEWHERE = {"prompts": "p", "answers": "a", "source": "s", "out": "o", "file": "f"}
NEEDED_ELSEWHERE |= {"positive": "p", "negative": "n", "runs": ("r",)}
GROUPS = [
    kind
    for kind in vars(config).values()
    if isinstance(kind, type) and issubclass(kind, Settings) and kind is not Settings
]


def test_there_is_a_group_for_everything():
    assert len(GROUPS) >= 11


@pytest.mark.parametrize("group", GROUPS)
def test_defaults_are_legal_and_every_setting_is_explained(group):
    all_needed = NEEDED | NEEDED_ELSEWHERE
    needed = {name: value for name, value in all_needed.items() if name in group.names()}
    made = group.from_mapping(needed)
    assert group.from_mapping(made.to_mapping()) == made
    for field in dataclasses.fields(group):
        help_text = field.metadata["help"]
        assert help_text.endswith("."), field.name


def test_training_with_a_constraint_needs_an_autoencoder():
    with pytest.raises(ConfigError, match="sae is not set while alpha is above 0"):
        TrainConfig(model="m", data="d", output="o")
    assert TrainConfig(model="m", data="d", output="o", alpha=0.0).sae is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"feature_weights": "w"}, "feature_weights is set while sae names 2"),
        ({"hook": "blocks.1.hook_resid_post"}, "hook names 1 places and sae 2 autoencoders"),
        ({"sae": "one,one"}, "sae names an autoencoder twice"),
    ],
)
def test_several_autoencoders(change, words):
    given = NEEDED | {"sae": "one,two"}
    assert TrainConfig(**given).sae == ("one", "two")
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**given | change)


def test_epochs_and_iters_exclude_each_other():
    with pytest.raises(ConfigError, match="epochs and iters are both set"):
        LoopConfig(output="o", epochs=1.0, iters=10)
    with pytest.raises(ConfigError, match="epochs and iters"):  # also as a part of a command's
        TrainConfig(**NEEDED, epochs=1.0, iters=10)


def test_no_layers_to_train_is_refused():
    with pytest.raises(ConfigError, match="num_layers is 0"):
        AdapterConfig(num_layers=0)


@pytest.mark.parametrize(
    ("key", "value"),
    [("alpha", -0.1), ("beta", 0.0), ("k", 0), ("k", 1.5), ("stop_gradient", "off")],
)
def test_objective_bounds(key, value):
    with pytest.raises(ConfigError, match=key):
        ObjectiveConfig.from_mapping({key: value})


def test_a_learning_rate_as_yaml_reads_it():
    assert TrainConfig.from_mapping({**NEEDED, "learning-rate": "5e-7"}).learning_rate == 5e-7


def test_a_misspelt_option_names_the_right_one():
    with pytest.raises(ConfigError, match="did you mean 'stop_gradient'"):
        TrainConfig.from_mapping({**NEEDED, "stop_gradients": True})

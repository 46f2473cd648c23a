"""Presets lie under what is given, and those of the paper are for whole models."""

import pytest

from fpo_core.config import LEARNING, PAPER, TrainConfig
from fpo_core.config.presets import WIDTH
from fpo_core.errors import ConfigError

NEEDED = {"model": "m", "data": "d", "output": "o", "sae": "s"}


def made(**given):
    return TrainConfig.from_mapping(NEEDED | given)


@pytest.mark.parametrize("name", PAPER)
def test_every_setting_of_a_preset_is_in_force(name):
    config = made(preset=name)
    for key, value in PAPER[name].items():
        assert getattr(config, key) == value, key
    assert config.peak_learning_rate(config.fine_tune_type) == PAPER[name]["learning_rate"]
    assert TrainConfig.from_mapping(config.to_mapping()) == config


@pytest.mark.parametrize("name", LEARNING)
@pytest.mark.parametrize(
    ("kind", "trained"), [("lora", "adapters"), ("dora", "adapters"), ("full", "full")]
)
def test_presets_that_learn_go_with_what_is_trained(name, kind, trained):
    config = made(preset=name, fine_tune_type=kind)
    settings = LEARNING[name][trained]
    assert config.rpo_alpha == settings["rpo_alpha"]
    assert config.learning_rate is None
    assert config.learning_rate_at(WIDTH) == settings["learning_rate"]
    assert TrainConfig.from_mapping(config.to_mapping()) == config


def test_a_wider_model_has_a_lower_rate():
    rates = [made().learning_rate_at(width) for width in (128, 576, 2304, None)]
    assert rates == [2.7e-3, 6e-4, 1.5e-4, 6e-4]
    assert made(fine_tune_type="full").learning_rate_at(4096) == 7e-6
    assert made(preset="paper").learning_rate_at(128) is None


def test_the_default_preset_is_for_what_it_was_chosen_with():
    assert made() == made(preset="default")
    assert made().rpo_alpha == LEARNING["default"]["adapters"]["rpo_alpha"]
    others = (
        {"objective": "dpo"},
        {"optimizer": "lozo"},
        {"online": "plain"},
        {"fine_tune_type": "prompt"},
        {"preset": "none"},
        {"preset": None},
    )
    for other in others:
        config = made(**other)
        rates = config.learning_rate, config.learning_rate_at(WIDTH)
        assert (*rates, config.rpo_alpha) == (None, None, 0.0), other
    assert made(rpo_alpha=0.0, learning_rate=1e-4).rpo_alpha == 0


def test_the_rate_goes_with_the_term():
    """At it, a run with less of the term breaks the model."""
    for weight in (0.0, 0.3):
        config = made(rpo_alpha=weight)
        assert (config.learning_rate_at(WIDTH), config.rpo_alpha) == (None, weight)
    unfinished = TrainConfig(**NEEDED)  # built without what follows from its preset
    assert unfinished.learning_rate_at(WIDTH) is None
    assert made(rpo_alpha=1.0) == made()
    assert made(rpo_alpha=100.0).learning_rate_at(WIDTH) == made().learning_rate_at(WIDTH)


def test_a_run_can_say_what_its_preset_set():
    assert made().of_preset == {"rpo_alpha": 1.0}
    assert made(learning_rate=1e-3).of_preset == {"rpo_alpha": 1.0}
    assert made(preset="none").of_preset == {}
    assert made(preset="paper", alpha=1.0).of_preset.keys() == PAPER["paper"].keys() - {"alpha"}


def test_what_is_given_wins():
    config = made(preset="paper", learning_rate=1e-6, batch_size=4, alpha=2.0, warmup=None)
    assert (config.learning_rate, config.batch_size, config.alpha) == (1e-6, 4, 2.0)
    assert (config.warmup, config.schedule) == (150, "constant")


def test_coefficients_go_to_fpo_alone():
    config = made(preset="paper", objective="simpo")
    assert config.coefficient("beta") == 2.0
    assert config.learning_rate == 5e-7


@pytest.mark.parametrize("given", [{"fine_tune_type": "lora"}, {"adapter": "a"}])
def test_adapters_need_a_learning_rate_of_their_own(given):
    with pytest.raises(ConfigError, match=r"of 5e-07 hardly trains an adapter: set learning_rate"):
        made(preset="paper", **given)
    assert made(preset="paper", learning_rate=1e-4, fine_tune_type="lora").batch_size == 32


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="preset is 'papre', expected one of 'default'"):
        made(preset="papre")

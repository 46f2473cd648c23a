"""The default's learning rate goes with the width of the model."""

from types import SimpleNamespace
from typing import Any

import pytest

from fpo.run_checks import at_width
from fpo.training import _preset_settings
from fpo_core.config import LEARNING, TrainConfig

NEEDED = {"model": "m", "data": "d", "output": "o", "sae": "s"}


def test_a_run_trains_and_records_its_rate(run, events):
    (first,) = (e for e in run.events if e["kind"] == "train" and e["step"] == 1)
    assert first["learning_rate"] == pytest.approx(2.7e-3)
    texts = [str(event.values) for event in events if event.kind == "note"]
    assert any("learning_rate 0.0027 for a model 128 wide" in text for text in texts)


def test_a_run_with_less_of_the_term_says_its_rate():
    width = SimpleNamespace(width=128)
    run: Any = SimpleNamespace(setup=SimpleNamespace(model=width))
    run.config = TrainConfig.from_mapping(NEEDED | {"rpo_alpha": 0.3})
    (said,) = _preset_settings(run)
    assert "learning_rate 0.0001, the optimizer's" in said
    assert "an rpo_alpha of 1 or more" in said
    run.config = TrainConfig.from_mapping(NEEDED | {"rpo_alpha": 0.3, "learning_rate": 1e-3})
    assert not _preset_settings(run)


@pytest.mark.parametrize("was", [2.7e-3, LEARNING["default"]["adapters"]["learning_rate"], None])
def test_a_run_goes_on_at_the_rate_that_it_began_with(was):
    """So does one of before the rate went with the width, or with more of the term."""
    checkpoint: Any = SimpleNamespace(origin=SimpleNamespace(config={"learning_rate": was}))
    config = TrainConfig.from_mapping(NEEDED)
    assert at_width(128, config, checkpoint).learning_rate == was
    checkpoint.origin.config["learning_rate"] = 1e-3  # set by its user: to be told of
    assert at_width(128, config, checkpoint).learning_rate == 2.7e-3

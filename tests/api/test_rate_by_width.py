"""The default's learning rate goes with the width of the model."""

from types import SimpleNamespace
from typing import Any

import pytest

from fpo.run_checks import at_width
from fpo_core.config import LEARNING, TrainConfig

NEEDED = {"model": "m", "data": "d", "output": "o", "sae": "s"}


def test_a_run_trains_and_records_its_rate(run, events):
    (first,) = (e for e in run.events if e["kind"] == "train" and e["step"] == 1)
    assert first["learning_rate"] == pytest.approx(2.7e-3)
    texts = [str(event.values) for event in events if event.kind == "note"]
    assert any("learning_rate 0.0027 for a model 128 wide" in text for text in texts)


@pytest.mark.parametrize("was", [2.7e-3, LEARNING["default"]["adapters"]["learning_rate"]])
def test_a_run_goes_on_at_the_rate_that_it_began_with(was):
    """So does one of before the rate went with the width."""
    checkpoint: Any = SimpleNamespace(origin=SimpleNamespace(config={"learning_rate": was}))
    config = TrainConfig.from_mapping(NEEDED)
    assert at_width(128, config, checkpoint).learning_rate == was
    checkpoint.origin.config["learning_rate"] = 1e-3  # set by its user: to be told of
    assert at_width(128, config, checkpoint).learning_rate == 2.7e-3

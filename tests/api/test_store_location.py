"""Where the reference store of a run is."""

from dataclasses import replace

import fpo
from fpo.model_setup import ModelSetup
from fpo.store_location import shared_store
from fpo_core.config import TrainConfig


def test_a_store_with_another_cap_is_another_one(tmp_path):
    world = fpo.quickstart_world()
    config = TrainConfig(
        model=str(world.model), data=str(world.pairs), output="run", alpha=0, backend="torch"
    )
    setup, cache = ModelSetup(config), str(tmp_path)
    usual = shared_store(setup, cache)
    assert shared_store(setup, cache, replace(config, feature_cap=1024)) == usual
    others = {"feature_cap": 4096}, {"feature_dtype": "float16"}
    stores = {shared_store(setup, cache, replace(config, **change)) for change in others}
    assert len(stores - {usual}) == 2

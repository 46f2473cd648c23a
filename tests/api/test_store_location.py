"""Where the reference store of a run is."""

from dataclasses import replace

import fpo
from fpo.comparison.shared_setup import SharedSetups
from fpo.store_location import shared_store
from fpo_core.config import TrainConfig


def test_a_store_with_another_cap_is_another_one(tmp_path):
    world = fpo.quickstart_world()
    config = TrainConfig(
        model=str(world.model), data=str(world.pairs), output="run", alpha=0, backend="torch"
    )

    def store(**change):
        return shared_store(SharedSetups().of(replace(config, **change)), str(tmp_path))

    assert store(feature_cap=1024) == store()
    assert len({store(), store(feature_cap=4096), store(feature_dtype="float16")}) == 3


def test_runs_that_store_features_otherwise_share_no_setup(tmp_path):
    world = fpo.quickstart_world()
    config = TrainConfig(
        model=str(world.model), data=str(world.pairs), output="run", alpha=0, backend="torch"
    )
    setups = SharedSetups()
    first = setups.of(config)
    assert setups.of(replace(config, beta=1.0)) is first
    assert setups.of(replace(config, feature_cap=4096)) is not first

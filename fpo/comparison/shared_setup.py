"""What runs that start alike share: model, autoencoders and pairs are loaded once for all."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fpo.model_setup import ModelSetup
from fpo_core.backend.policy import Policy
from fpo_core.config import (
    AdapterConfig,
    DataConfig,
    FeatureConfig,
    ModelConfig,
    StepConfig,
    TrainConfig,
)
from fpo_core.data.load import Goal, PreferenceData

_LOADED = {
    *("grad_checkpoint", "degree_weight", "degree_levels", "feature_cap", "feature_dtype"),
    *(
        name
        for group in (ModelConfig, FeatureConfig, AdapterConfig, StepConfig, DataConfig)
        for name in group.names()
    ),
}
"""Settings that decide what is loaded, and where its reference lies."""


@dataclass(frozen=True)
class SharedSetup(ModelSetup):
    """One setup for every run that it `serves`."""

    config: TrainConfig

    def serves(self, config: TrainConfig) -> bool:
        """Whether a run with these settings loads the same."""
        return all(getattr(self.config, name) == getattr(config, name) for name in _LOADED)

    def load_data(self, config: DataConfig, goal: Goal | None = None) -> PreferenceData:
        """Tokenised pairs."""
        del config, goal  # those of a run that is served are this setup's
        return self._data

    @cached_property
    def _data(self) -> PreferenceData:
        return super().load_data(self.config)

    def policy(self, config: AdapterConfig, *, grad_checkpoint: bool = False) -> Policy:
        """The model at its starting point: the one of the run before, taken back to it.

        Full fine-tuning loads it anew, rather than keep a copy of all weights.
        """
        if config.fine_tune_type == "full":
            return super().policy(config, grad_checkpoint=grad_checkpoint)
        policy, start = self._adapted
        policy.load_trained(start)
        policy.set_reference(None)
        policy.reset_peak_memory()
        return policy

    @cached_property
    def _adapted(self) -> tuple[Policy, dict[str, np.ndarray]]:
        config = self.config
        policy = super().policy(config, grad_checkpoint=config.grad_checkpoint)
        return policy, policy.trained()


class SharedSetups:
    """Lends runs their setup, and keeps the newest one."""

    def __init__(self) -> None:
        self._newest: SharedSetup | None = None

    def of(self, config: TrainConfig) -> SharedSetup:
        """The setup of a run. What no longer serves is let go first."""
        if self._newest is None or not self._newest.serves(config):
            # First let go, then load: two models at once may not fit.
            self._newest = None
            self._newest = SharedSetup(config)
        return self._newest

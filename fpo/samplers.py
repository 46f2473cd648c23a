"""What samples: the policy itself, or another library that its backend has."""

from collections.abc import Callable
from typing import Any

from fpo.backends import build_sampler
from fpo.model_setup import FROZEN, ModelSetup
from fpo_core.backend.policy import Policy, Sampler
from fpo_core.config import AdapterConfig, SamplerConfig, TrainConfig
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import ConfigError


def frozen_sampler(setup: ModelSetup, longest: int) -> Sampler:
    """What samples a model that is only read, in sequences of at most `longest` tokens."""
    other, start = setup.other_sampler, setup.start_adapter
    if other is None:
        return setup.policy(FROZEN)
    sampler = _opened(setup, other, None if start is None else start.shape(), longest)
    return sampler if start is None else sampler.holding(start.weights)


def training_sampler(
    setup: ModelSetup, config: TrainConfig, pairs: TokenisedPairs
) -> Callable[[Policy], Sampler] | None:
    """What samples answers to the prompts of pairs with a policy's present weights.

    None where the policy does it itself. Raises ConfigError for several processes.
    """
    other = setup.other_sampler
    if other is None:
        return None
    if setup.group.size > 1:
        raise ConfigError(
            f"sampler is {other.sampler}, which trains in one process, but the run has "
            f"{setup.group.size}: start one, or leave sampler out"
        )
    longest = int(pairs.prompt_lengths().max()) + config.online_tokens
    sampler = _opened(setup, other, config.only(AdapterConfig), longest)
    return lambda policy: sampler.holding(policy.trained())


def _opened(
    setup: ModelSetup, other: SamplerConfig, shape: AdapterConfig | None, longest: int
) -> Any:
    options = (setup.model, setup.computing, other.vllm_memory, shape, longest)
    return build_sampler(other.sampler, setup.backend, *options)

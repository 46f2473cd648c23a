"""What a workflow that runs a model loads first: model, tokenizer, features, data, reference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import build_policy, join_group, select_backend
from fpo.precision import computes_on_cpu, faster_dtype, stored_dtype
from fpo_core.adapters.base import base_change
from fpo_core.adapters.folders import load_any_adapter
from fpo_core.adapters.lora import Adapter, common_shape
from fpo_core.adapters.virtual_tokens import VirtualTokens
from fpo_core.backend.guidance import Guide, Value
from fpo_core.backend.policy import Policy, Sampling
from fpo_core.backend.process_group import Group
from fpo_core.backend.reference_weights import as_reference
from fpo_core.config import (
    AdapterConfig,
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    ReferenceConfig,
    SaeConfig,
    SamplerConfig,
    SamplingConfig,
    StepConfig,
    TrainConfig,
    ValueConfig,
)
from fpo_core.data.load import Goal, PreferenceData, load_data
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import load_tokenizer
from fpo_core.events import Sink, warn
from fpo_core.io.digests import sampled_sha256
from fpo_core.models.bounds import Bounds
from fpo_core.models.folder import ModelFolder
from fpo_core.reference.build import extend_store, store_key
from fpo_core.reference.key import StoreKey
from fpo_core.reference.reader import ReferenceStore
from fpo_core.sae.load import load_features, special_roles
from fpo_core.sae.taps import Features
from fpo_core.values.folder import StoredValue, load_value

Weights = dict[str, np.ndarray]

FROZEN = AdapterConfig(rank=1, num_layers=1)
"""The least that a policy can have of an adapter, for models that are only read."""


@dataclass(frozen=True)
class ModelSetup:
    """A model with its tokenizer and, where given, its autoencoders and starting adapter."""

    config: ModelConfig

    @cached_property
    def backend(self) -> str:
        """Name of the backend in use."""
        return select_backend(self.config)

    @property
    def group(self) -> Group:
        """The processes that share the work."""
        return join_group(self.backend)

    @cached_property
    def model(self) -> ModelFolder:
        """The model on disk."""
        return ModelFolder.locate(self.config)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(str(self.model.path), None, self.config.trust_remote_code)

    @cached_property
    def special(self) -> dict[str, tuple[int, ...]]:
        """Special token ids by role."""
        return special_roles(self.tokenizer)

    @property
    def stop(self) -> tuple[int, ...]:
        """Tokens that end a completion."""
        return tuple(dict.fromkeys(self.special["end_of_turn"] + self.special["eos"]))

    def sampling(self, config: SamplingConfig) -> Sampling:
        """How completions are drawn: as configured, until one of the model's ends."""
        drawn = config.max_tokens, config.temperature, config.top_p
        return Sampling(*drawn, self.config.seed, self.stop, self.guide)

    @cached_property
    def values(self) -> list[tuple[StoredValue, float]]:
        """The value functions that weigh samples, each with its β; none where that is 0."""
        config = self.config
        if not isinstance(config, ValueConfig) or config.value is None:
            return []
        weighed = zip(config.value, config.betas, strict=True)
        return [(load_value(Path(folder), self.model), beta) for folder, beta in weighed if beta]

    @property
    def values_key(self) -> dict[str, Any]:
        """What tells samples under these values from others; empty where there are none."""
        if not self.values or not isinstance(self.config, ValueConfig):
            return {}
        seals = [[value.facts["sha256"], beta] for value, beta in self.values]
        return {"values": seals, "value_top_k": self.config.value_top_k}

    @cached_property
    def guide(self) -> Guide | None:
        """What weighs tokens, for a policy of the shape that `common_shape` finds."""
        return self.guide_in(self._fitted[1]) if self.values else None

    def guide_in(self, fitted: Sequence[Weights]) -> Guide | None:
        """The values with their adapters in another shape, the last ones of `fitted`."""
        if not self.values or not isinstance(self.config, ValueConfig):
            return None
        parts = zip(fitted[-len(self.values) :], self.values, strict=True)
        values = (Value(weights, stored.head, beta) for weights, (stored, beta) in parts)
        return Guide(tuple(values), self.config.value_top_k)

    @cached_property
    def _fitted(self) -> tuple[AdapterConfig, list[Weights]]:
        """A shape for the starting adapter and all values, and the weights of each in it."""
        start = [] if self.start_adapter is None else [self.start_adapter]
        return common_shape([*start, *(value.adapter for value, _ in self.values)])

    @property
    def other_sampler(self) -> SamplerConfig | None:
        """What samples in place of the backend's own library; None where that does."""
        config = self.config
        if isinstance(config, SamplerConfig) and config.sampler != "backend":
            return config
        return None

    @cached_property
    def features(self) -> Features | None:
        """The autoencoders where they read the model."""
        if not isinstance(self.config, SaeConfig):
            return None
        return load_features(self.config, self.model, self.special)

    @cached_property
    def start_adapter(self) -> Adapter | VirtualTokens | None:
        """The adapter that the model starts from."""
        folder = self.config.adapter
        return None if folder is None else load_any_adapter(Path(folder), self.model)

    def warn_of_base(self, adapter: str | None, sink: Sink) -> None:
        """Warn where an adapter, or a value, was trained on another model than this."""
        values = self.config.value if isinstance(self.config, ValueConfig) else None
        for folder in (adapter, *(values or ())):
            change = None if folder is None else base_change(Path(folder), self.model)
            if change is not None:
                warn(sink, change)

    @cached_property
    def computing(self) -> ModelConfig:
        """The settings that policies are opened with: `settle_dtype` resolves an auto in them."""
        return self.config

    def settle_dtype(self, sink: Sink, store: Path | None, made_in: str | None = None) -> None:
        """Resolve `dtype` auto, once: as a checkpoint was `made_in`, and on a CPU as the `store`
        was, or else by a probe.
        """
        config = self.config
        if config.dtype != "auto" or "computing" in vars(self):
            return
        dtype = made_in
        if dtype is None and computes_on_cpu(self.backend, config):
            dtype = None if store is None else stored_dtype(store)
            dtype = dtype or faster_dtype(self.backend, self.model.config, self.group, sink)
        # Where cached_property keeps it: policies opened from here on compute in it.
        vars(self)["computing"] = replace(config, **({"dtype": dtype} if dtype else {}))

    @property
    def left_out(self) -> int:
        """Modules that get an adapter for the starting one's sake and have none in it."""
        return 0 if self.start_adapter is None else self.start_adapter.left_out

    def load_data(self, config: DataConfig, goal: Goal | None = None) -> PreferenceData:
        """Tokenised pairs, whose prompts ask for the goal where there is one."""
        data = load_data(config, self.tokenizer, self.config.seed, goal=goal)
        bounds = Bounds.of(self.model, self.config)
        for pairs in splits_of(data):
            bounds.check_pairs(pairs, self.tokenizer)
        return data

    def adapter_config(self, config: AdapterConfig) -> AdapterConfig:
        """What is trained: as configured, or shaped as the adapter that the model starts from."""
        adapter = self.start_adapter
        if self.values:
            return self._fitted[0]
        if adapter is None:
            return config.only(AdapterConfig)
        return replace(adapter.shape(), dropout=config.dropout, freeze_a=config.freeze_a)

    def policy(self, config: AdapterConfig, *, grad_checkpoint: bool = False) -> Policy:
        """The model at its starting point; `config` may say how it is trained, too."""
        trained = config if isinstance(config, TrainConfig) else None
        policy = build_policy(
            self.backend,
            self.model.path,
            self.computing,
            self.adapter_config(config),
            self.features,
            grad_checkpoint=grad_checkpoint,
            step=self.step,
            zeroth_order=isinstance(config, OptimiserConfig) and config.zeroth_order,
            degree_levels=trained.degree_levels if trained and trained.degree_weight else 0,
            shard=self.group if trained and trained.shard else None,
            cpu_offload=trained is not None and trained.cpu_offload,
        )
        if self.start_adapter is not None:
            # Modules that an irregular adapter leaves out stay at their start, which adds nothing.
            start = self._fitted[1][0] if self.values else self.start_adapter.weights
            policy.load_trained(policy.trained() | start)
        return policy

    @property
    def step(self) -> StepConfig:
        """How forward passes are computed; plainly, where there are no settings for it."""
        config = self.config
        return config.only(StepConfig) if isinstance(config, StepConfig) else StepConfig(plain=True)

    @cached_property
    def key(self) -> StoreKey:
        """Identity of this model's reference."""
        adapter = self.config.adapter
        # The reference of virtual tokens is the model without them, whatever they start from.
        if isinstance(self.start_adapter, VirtualTokens):
            adapter = None
        fingerprint = None if adapter is None else _adapter_fingerprint(Path(adapter))
        return store_key(self.model.fingerprint(), fingerprint, self.features)

    def reference(
        self,
        folder: Path,
        splits: Sequence[TokenisedPairs],
        policy: Policy,
        config: ReferenceConfig,
        emit: Sink,
    ) -> ReferenceStore:
        """The store at `folder`, extended by what it lacks of the splits."""
        widths = () if self.features is None else self.features.widths
        with as_reference(policy):
            return extend_store(folder, self.key, policy, splits, config, emit, self.group, widths)


def _adapter_fingerprint(folder: Path) -> str:
    return sampled_sha256([*folder.glob("adapter*.safetensors"), *folder.glob("adapter*.json")])


def splits_of(data: PreferenceData) -> list[TokenisedPairs]:
    """Training pairs and, where there are any, validation pairs."""
    return [data.train] if data.valid is None else [data.train, data.valid]

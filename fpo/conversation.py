"""A conversation with a model, with and without its adapter, or under two adapters."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import build_policy
from fpo.generation import TextStream
from fpo.model_setup import FROZEN, ModelSetup
from fpo.prompt_text import token_ids
from fpo.results import Result, Table
from fpo.workflow import workflow
from fpo_core.adapters.folders import load_any_adapter
from fpo_core.adapters.lora import Adapter, common_shape
from fpo_core.adapters.virtual_tokens import VirtualTokens
from fpo_core.backend.policy import Policy
from fpo_core.backend.reference_weights import reference_weights
from fpo_core.config import ChatConfig
from fpo_core.data.tokenizer import render
from fpo_core.errors import ConfigError, DataError
from fpo_core.evaluation.logit_lens import promoted_tokens
from fpo_core.evaluation.model_card import shown
from fpo_core.evaluation.texts import sequences
from fpo_core.events import Sink, note

_PROMOTED = 6
Weights = dict[str, np.ndarray]
_Adapter = Adapter | VirtualTokens


@dataclass(frozen=True)
class Reply:
    """One answer, and who gave it."""

    model: str
    text: str
    tokens: int


@dataclass(frozen=True)
class ReplyFeature:
    """A feature that fired in a reply."""

    index: int
    mean: float
    """Over the reply's tokens."""
    peak: float
    promotes: list[str]


@dataclass(eq=False)
class Conversation(Result):
    """A conversation that goes on: `reply`, `compare`, `features`, `reset`."""

    setup: ModelSetup = field(repr=False)
    config: ChatConfig = field(repr=False)
    policy: Policy = field(repr=False)
    models: dict[str, Weights] = field(repr=False)
    """Weights by the name of a model: the one that answers, then the one beside it."""
    messages: list[dict[str, str]] = field(default_factory=list)
    """The turns so far, as chat templates take them."""
    _read: list[np.ndarray] = field(default_factory=list, repr=False)

    @property
    def names(self) -> list[str]:
        """The names of the models."""
        return list(self.models)

    def reset(self) -> None:
        """Forget every turn; a system message stays."""
        system = self.config.system_prompt
        self.messages = [] if system is None else [{"role": "system", "content": system}]
        self._read = []

    def reply(self, text: str, sink: Sink) -> Reply:
        """Answer a message; the sink hears the answer as it comes, in events of kind `text`."""
        turn = {"role": "user", "content": text}
        reply, ids = self._answer(self.names[0], [*self.messages, turn], sink)
        # Only now: an answer that was broken off leaves the turns as they were.
        self.messages += [turn, {"role": "assistant", "content": reply.text}]
        self._read = ids
        return reply

    def compare(self, sink: Sink, text: str | None = None) -> list[Reply]:
        """Answers of both models to a message, by default the last one; no turn is added.

        Raises ConfigError where there is nothing to answer, or only one model.
        """
        if len(self.models) < 2:
            raise ConfigError(
                "there is one model here: set adapter, or other_adapter, to compare two"
            )
        turns = self.messages
        if text is None:
            if len(turns) < 2:
                raise ConfigError("there is no message yet: say something, or compare with a text")
            turns = turns[:-1]
        else:
            turns = [*turns, {"role": "user", "content": text}]
        return [self._answer(name, turns, sink)[0] for name in self.names]

    def features(self) -> list[ReplyFeature]:
        """The features that fired most in the last reply, by their mean over its tokens.

        Raises ConfigError without an autoencoder, or before there is a reply.
        """
        features = self.setup.features
        if features is None:
            raise ConfigError("sae is not set: set it to look at features")
        if not self._read or not len(self._read[1]):
            raise ConfigError("there is no reply yet: say something")
        tap = features.single
        prompt, reply = self._read
        batch = sequences([np.concatenate([prompt, reply]).tolist()], [len(prompt)])
        self.policy.load_trained(self.models[self.names[0]])
        scores = self.policy.token_scores(batch)
        assert scores.pooled is not None
        assert scores.peaks is not None
        pooled = scores.pooled[0]
        top = np.argsort(-np.abs(pooled), kind="stable")[: self.config.top_features]
        top = top[pooled[top] != 0]
        promoted = promoted_tokens(self.policy, tap.sae, tap.hook.site, top.tolist(), _PROMOTED)
        decode = self.setup.tokenizer.decode
        return [
            ReplyFeature(
                int(i), float(pooled[i]), float(scores.peaks[0][i]), [decode([t]) for t in ids]
            )
            for i, ids in zip(top, promoted or [[]] * len(top), strict=True)
        ]

    def _answer(
        self, name: str, turns: list[dict[str, str]], sink: Sink
    ) -> tuple[Reply, list[np.ndarray]]:
        config, tokenizer = self.config, self.setup.tokenizer
        ids = _prompt_ids(tokenizer, turns)
        self.policy.load_trained(self.models[name])
        stream = TextStream(tokenizer, 1, config.max_tokens, sink)
        [sampled] = self.policy.generate([ids], self.setup.sampling(config), stream)
        text = tokenizer.decode(sampled, skip_special_tokens=True)
        stream.emit(0, text)
        return Reply(name, text, len(sampled)), [ids, sampled]

    def table(self) -> Table:
        """A turn a row."""
        return Table(("", ""), [(turn["role"], turn["content"]) for turn in self.messages])

    def to_mapping(self) -> dict[str, Any]:
        """The conversation as JSON values."""
        return {
            "backend": self.setup.backend,
            "models": self.names,
            "messages": [dict(turn) for turn in self.messages],
        }


@workflow(ChatConfig)
def chat(config: ChatConfig, sink: Sink) -> Conversation:
    """Open a conversation with a model, with or without an adapter, and one to compare it with.

    Messages go through the tokenizer's chat template; without one, the turns are one text that goes
    on. Both models are one set of weights with two adapters, so a comparison holds no second model.
    """
    setup = ModelSetup(config)
    note(sink, f"{setup.backend}, {setup.model.name}")
    for adapter in (config.adapter, config.other_adapter):
        setup.warn_of_base(adapter, sink)
    adapters = [setup.start_adapter]
    if config.other_adapter is not None or config.adapter is not None:
        adapters.append(_other(config, setup))
    policy, weights = _weights(setup, adapters)
    names = _names(config)
    conversation = Conversation(setup, config, policy, dict(zip(names, weights, strict=False)))
    conversation.reset()
    if config.system_prompt is not None and not setup.tokenizer.chat_template:
        raise ConfigError(
            "system_prompt is set, but this tokenizer has no chat template: leave it out"
        )
    return conversation


def _other(config: ChatConfig, setup: ModelSetup) -> _Adapter | None:
    if config.other_adapter is None:
        return None
    return load_any_adapter(Path(config.other_adapter), setup.model)


def _weights(setup: ModelSetup, adapters: list[_Adapter | None]) -> tuple[Policy, list[Weights]]:
    """A policy that holds any of the adapters, and the weights of each."""
    present = [adapter for adapter in adapters if adapter is not None]
    shape, fitted = common_shape(present) if present else (FROZEN, [])
    policy = build_policy(setup.backend, setup.model.path, setup.config, shape, setup.features)
    start = reference_weights(policy)
    return policy, [start | ({} if a is None else fitted.pop(0)) for a in adapters]


def _names(config: ChatConfig) -> list[str]:
    first = "model" if config.adapter is None else shown(config.adapter)
    other = "base" if config.other_adapter is None else shown(config.other_adapter)
    return [first, other if other != first else f"{other} (other)"]


def _prompt_ids(tokenizer: Any, turns: list[dict[str, str]]) -> np.ndarray:
    """The conversation as the model reads it, up to where its answer begins."""
    if tokenizer.chat_template:
        messages: list[Any] = list(turns)
        text = render(tokenizer, messages, generation_prompt=True)
    else:
        text = "\n".join(turn["content"] for turn in turns)
    ids = token_ids(tokenizer, text, rendered=bool(tokenizer.chat_template))
    if not len(ids):
        raise DataError("the message is empty, expected some text")
    return ids

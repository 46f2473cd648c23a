"""A reward model as a judge: a sequence classifier with one output, read at the last token."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fpo_core.data.batching import scoring_batches
from fpo_core.data.tokenizer import render
from fpo_core.errors import JudgeError, ModelError
from fpo_core.events import Sink, progress, silent
from fpo_core.judges.judge import ScoringJudge, Texts, logistic
from fpo_core.models.folder import ModelFolder

HEAD = "score.weight"
"""The weights of the value head, (1, hidden), where transformers saves them."""


class RewardModel(Protocol):
    """A backend's model with a value head."""

    width: int | None
    """The longest sequence that it reads; None for any."""

    def values(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Rewards (n,) of sequences (n, t) that are padded on the right, at their last tokens."""
        ...


class RewardModelJudge(ScoringJudge):
    """Scores the reward of a conversation; a difference of rewards is a logit (Bradley–Terry)."""

    def __init__(
        self,
        model: RewardModel,
        tokenizer: Any,
        name: str,
        *,
        tokens_per_batch: int = 8192,
        sink: Sink = silent,
    ) -> None:
        self.name = name
        self._model, self._tokenizer, self._sink = model, tokenizer, sink
        self._budget = tokens_per_batch

    def score(self, prompts: Texts, completions: Texts) -> list[float]:
        """See `Judge`. Raises JudgeError for a conversation that is too long for the model."""
        rows = [self._ids(p, c) for p, c in zip(prompts, completions, strict=True)]
        lengths = np.array([len(row) for row in rows], np.int64)
        result = np.zeros(len(rows))
        # Batches are planned for pairs, two sequences to a row; a conversation is one.
        done = 0
        for places in scoring_batches(lengths, 2 * self._budget):
            result[places] = self._values([rows[i] for i in places])
            done += len(places)
            progress(self._sink, "rewards", done, len(rows))
        return result.tolist()

    def preference(self, left: float, right: float) -> float:
        """σ(left − right)."""
        return logistic(left - right)

    def _values(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        lengths = np.array([len(row) for row in rows])
        tokens = np.zeros((len(rows), lengths.max()), np.int32)
        for place, row in zip(tokens, rows, strict=True):
            place[: len(row)] = row
        return self._model.values(tokens, lengths)

    def _ids(self, prompt: str, completion: str) -> np.ndarray:
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ]
        if self._tokenizer.chat_template:
            text = render(self._tokenizer, messages, generation_prompt=False)
            ids = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        else:
            ids = self._tokenizer(prompt, completion, verbose=False).input_ids
        if self._model.width is not None and len(ids) > self._model.width:
            raise JudgeError(
                f"an answer has {len(ids)} tokens with its prompt, and {self.name} reads "
                f"{self._model.width}: take shorter answers, or another judge"
            )
        return np.asarray(ids, np.int32)


def check_reward_model(model: ModelFolder) -> None:
    """Raise ModelError unless a folder holds a sequence classifier with one output."""
    architectures = model.settings.get("architectures") or [""]
    labels = model.settings.get("num_labels", len(model.settings.get("id2label", (0, 1))))
    if not str(architectures[0]).endswith("ForSequenceClassification") or labels != 1:
        raise ModelError(
            f"{model.name} is a {architectures[0] or 'model'} of {labels} labels, expected a "
            "reward model: a sequence classifier with one label, as transformers saves it"
        )

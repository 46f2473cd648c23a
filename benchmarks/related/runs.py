"""Short runs on the quickstart's world, on its pairs or on other rows, and their measures."""

import itertools
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo.world import assets, score
from fpo_core.backend.policy import Sampling
from fpo_core.config import (
    AdapterConfig,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
)
from fpo_core.data.batches import collate
from fpo_core.data.load import load_data
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenizer import load_tokenizer, special_ids
from fpo_core.evaluation.evaluate import sample
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.metrics import preference_metrics
from fpo_core.loss.scores import Scores, join
from fpo_core.pairs.goals import GoalTemplate
from fpo_core.train.degrees import Degrader
from fpo_torch.policy import TorchPolicy

SEEDS = 5
STEPS, BATCH, RATE = 60, 12, 3e-3
"""Of a run: the quickstart's batch and rate, half of its steps."""
EVERY = 10
"""Steps between looks at the held-out pairs."""
Rows = Sequence[dict[str, Any]]
Cases = dict[str, Callable[[], Any]]
"""By the name of a case, what measures it: values over seeds, or a number."""


@dataclass(frozen=True)
class Pairs:
    """Tokenised pairs with the start's log-probabilities of them."""

    tokens: TokenisedPairs
    logps: np.ndarray
    """(2, n) log π_ref of chosen and rejected."""


class World:
    """One policy, brought back to its start for every run."""

    def __init__(self, degree_levels: int = 0) -> None:
        self.model = assets().model
        self.tokenizer = load_tokenizer(str(self.model))
        self.scratch = tempfile.TemporaryDirectory()  # tokens are read from there as they are used
        config = ModelConfig(model=str(self.model), device="cpu", dtype="float32")
        adapter = AdapterConfig(rank=16, scale=1.0)
        self.policy = TorchPolicy(self.model, config, adapter, degree_levels=degree_levels)
        self.start = self.policy.trained()
        self.stop = special_ids(self.tokenizer)["end_of_turn"]

    def load(self, data: Path, most: int | None = None) -> Pairs:
        """The first pairs of a file, scored at the start."""
        cache = self.scratch.name
        config = DataConfig(data=str(data), cache=cache, max_seq_length=96, max_rows=most)
        tokens = load_data(config, self.tokenizer, workers=1).train
        self.policy.load_trained(self.start)
        return Pairs(tokens, self.score(tokens).logps.reshape(2, -1))

    def rows(self, rows: Rows) -> Pairs:
        """The same of rows in TRL's format."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            return self.load(path)

    def score(self, tokens: TokenisedPairs, degrader: Degrader | None = None) -> Scores:
        """Scores of pairs as the policy is now, with a degrader of their degrees too."""
        ends = [*range(0, len(tokens), 40), len(tokens)]
        batches = [collate(tokens, range(*span)) for span in itertools.pairwise(ends)]
        if degrader is not None:
            batches = [degrader.degraded(batch, 0) for batch in batches]
        parts = [self.policy.score(batch) for batch in batches]
        return join([part.without_pooled() for part in parts])

    def train(
        self,
        pairs: Pairs,
        objective: ObjectiveConfig,
        seed: int,
        *,
        steps: int = STEPS,
        look: Callable[[], None] = lambda: None,
        degrader: Degrader | None = None,
    ) -> None:
        """A run from the start; `look` is called before it and every few steps."""
        self.policy.load_trained(self.start)
        self.policy.prepare_training(OptimiserConfig())
        rng = np.random.default_rng(seed)
        order = np.concatenate([rng.permutation(len(pairs.tokens)) for _ in range(10)])
        look()
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            reference = ReferenceBatch(pairs.logps[:, rows].reshape(-1))
            batch = collate(pairs.tokens, rows)
            if degrader is not None:
                batch = degrader.degraded(batch, step + 1)
            self.policy.accumulate(batch, reference, objective, 1 / BATCH)
            warm = min(1.0, (step + 1) / (0.1 * steps))
            self.policy.apply_gradients(RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2, 1)
            if (step + 1) % EVERY == 0:
                look()

    def metrics(self, held_out: Pairs, objective: ObjectiveConfig) -> dict[str, float]:
        """Metrics of held-out pairs."""
        scores = self.score(held_out.tokens)
        return preference_metrics(scores, held_out.logps.reshape(-1), objective)

    def samples(
        self,
        prompts: Sequence[str],
        seed: int,
        template: GoalTemplate | None = None,
        goal: float = 0.0,
    ) -> dict[str, float]:
        """The oracle's mean score of a completion of each prompt, and their entropy.

        With a template, of completions that are asked for a goal, which the oracle does not see.
        """
        asked: list[Any] = [[{"role": "user", "content": prompt}] for prompt in prompts]
        if template is not None:
            asked = [template.prompt(messages, goal) for messages in asked]
        texts = [
            self.tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)
            for m in asked
        ]
        ids = [
            np.asarray(self.tokenizer(text, add_special_tokens=False).input_ids, np.int32)
            for text in texts
        ]
        drawn = sample(self.policy, ids, Sampling(48, 1.0, 1.0, seed, self.stop))
        completions = [
            self.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in drawn.completions
        ]
        scores = [
            score(prompt, text).preferred for prompt, text in zip(prompts, completions, strict=True)
        ]
        return {"oracle": float(np.mean(scores)), "entropy": drawn.entropy}


def over_seeds(run: Callable[[int], dict[str, float]]) -> dict[str, Any]:
    """What a run gives of each seed, as intervals."""
    return intervals([run(seed) for seed in range(SEEDS)])


def intervals(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """`interval` of each value of several runs."""
    return {key: interval([row[key] for row in rows]) for key in rows[0]}


def interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over seeds with its 95% interval by Student's t."""
    array = np.asarray(values, np.float64)
    half = _T[len(array) - 1] * array.std(ddof=1) / math.sqrt(len(array))
    return {"mean": float(array.mean()), "low": float(array.mean() - half)} | {
        "high": float(array.mean() + half)
    }


_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Two-sided 95% points of Student's t by degrees of freedom."""

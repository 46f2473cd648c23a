"""Drawing pools of an online run: sample, judge, score with the reference.

A pool depends on the weights, the seed and the step alone, however many processes draw it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fpo_core.arrays import numpy_ops
from fpo_core.backend.draws import occurrences
from fpo_core.backend.policy import Policy, Sampler, Sampling
from fpo_core.backend.process_group import joined, only_first, scored_together
from fpo_core.config import TrainConfig
from fpo_core.data.batches import collate
from fpo_core.data.batching import scoring_batches
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.errors import JudgeError
from fpo_core.events import Event, Sink, progress
from fpo_core.judges.best_worst import require_replies
from fpo_core.judges.judge import Judge
from fpo_core.loss.dense import ReferenceBatch
from fpo_core.loss.objectives import objective_terms
from fpo_core.loss.scores import Scores
from fpo_core.train.paired_data import RunData
from fpo_core.train.pool import Ints, Pool
from fpo_core.train.schedule import RowPlan, step_seed
from fpo_core.train.state import Stopwatch

_ROUTES, _LABELS, _SAMPLES = 1, 2, 3
"""What is drawn, in the entropy of its generator: independent of rows and dropout."""
Lists = tuple[Ints, Ints, Ints]
"""Prompt, chosen and rejected completion of a pair, as token ids."""


@dataclass(frozen=True)
class OnlineSource:
    """What drawing needs besides a policy and its pairs."""

    judge: Judge | None
    """In the first process, where the route asks one."""
    prompt_text: Callable[[Ints], str]
    """A prompt's ids as the judge reads it."""
    text: Callable[[Ints], str]
    """The same of a completion."""
    stop: tuple[int, ...]
    """Tokens that end a completion."""
    sampler: Callable[[Policy], Sampler] | None = None
    """What samples a policy as it is now, in place of the policy itself."""


@dataclass
class Drawer:
    """Draws the pools of a run."""

    policy: Policy
    data: RunData
    config: TrainConfig
    plan: RowPlan
    source: OnlineSource
    emit: Sink
    _watch: Stopwatch = field(default_factory=Stopwatch)

    def is_due(self, step: int) -> bool:
        """Whether a pool begins at step 1, 2, …."""
        return (step - 1) % self.config.online_every == 0

    def draw(self, step: int) -> Pool:
        """The pool of this step and those up to the next one; needs `set_reference` before.

        Prompts whose two samples are equal, tied or without a verdict keep the pair of the data.
        Raises JudgeError where the judge fails, or has no verdict on any of the pairs.
        """
        route = self.config.route
        assert route is not None
        training = self._watch.lap()
        steps, places, rows = self._routed(step, route.share)
        values: dict[str, float] = {"wanted": len(rows)}
        pairs = self._sampled(step, rows) if route.samples else _lists(self.data.train, rows)
        values["sampling_seconds"] = self._watch.lap()
        if route.judged:
            wins = self._judged(step, pairs)
            values |= {"tied": int((wins == 0.5).sum()), "no_verdict": int(np.isnan(wins).sum())}
            pairs = [_swapped(p) if win < 0.5 else p for p, win in zip(pairs, wins, strict=True)]
            usable = ~np.isnan(wins) & (wins != 0.5)
        else:
            usable = np.array([p[1].tolist() != p[2].tolist() for p in pairs], bool)
            values["tied"] = int((~usable).sum())
        values["judging_seconds"] = self._watch.lap()
        kept = np.flatnonzero(usable)
        tokenised = _pairs(pairs[i] for i in kept)
        pool = Pool(steps[kept], places[kept], tokenised, self._reference(tokenised))
        if route.own_labels:
            pool = self._labelled(step, pool)
        values |= {"pairs": len(kept), "scoring_seconds": self._watch.lap()}
        self.emit(Event("pool", step, values | {"training_seconds": training}))
        return pool

    def _routed(self, step: int, share: float) -> tuple[Ints, Ints, Ints]:
        """The pairs that fresh ones replace: step, place among its pairs, and row, (b,) each."""
        steps, places, rows = [], [], []
        for s in range(step, min(step + self.config.online_every, self.plan.steps + 1)):
            planned = joined(self.plan.batches(s))
            taken = np.flatnonzero(_uniforms(self.config.seed, s, _ROUTES, len(planned)) < share)
            steps.append(np.full(len(taken), s))
            places.append(taken)
            rows.append(planned[taken])
        return joined(steps), joined(places), joined(rows)

    def _sampled(self, step: int, rows: Ints) -> list[Lists]:
        """Two samples to the prompt of each row, each process taking some of the prompts."""
        config, group = self.config, self.data.group
        prompts = [self.data.train[int(row)].prompt for row in rows for _ in range(2)]
        numbers = occurrences(prompts)
        seed = step_seed(config.seed, step, 0, _SAMPLES)
        sampling = Sampling(
            config.online_tokens, config.online_temperature, seed=seed, stop=self.source.stop
        )
        # Float32 sums hold every token id; 0 is no token here, so that lengths need no table.
        table = np.zeros((len(prompts), config.online_tokens), np.float32)
        owned = np.arange(group.rank, len(prompts), group.size)
        sampler: Sampler = self.policy
        size = sampled_at_once(max(map(len, prompts), default=0), config)
        if self.source.sampler is not None:  # which makes batches of its own
            sampler, size = self.source.sampler(self.policy), max(1, len(owned))
        for start in range(0, len(owned), size):
            batch = owned[start : start + size].tolist()
            asked = [prompts[i] for i in batch]
            drawn = sampler.generate(asked, sampling, numbers=[numbers[i] for i in batch])
            for i, ids in zip(batch, drawn, strict=True):
                table[i, : len(ids)] = ids + 1
            progress(self.emit, "sampling", start + len(batch), len(owned), step)
        samples = [row[row > 0].astype(np.int32) - 1 for row in group.sum(table)]
        rooms = [max(1, config.max_seq_length - len(prompt)) for prompt in prompts]
        cut = [ids[:room] for ids, room in zip(samples, rooms, strict=True)]
        return [(prompts[i], cut[i], cut[i + 1]) for i in range(0, len(prompts), 2)]

    def _judged(self, step: int, pairs: Sequence[Lists]) -> np.ndarray:
        """How likely the first sample of each pair is the better one, (b,); NaN for no verdict."""
        wins = np.zeros(len(pairs), np.float32)

        def judge() -> None:
            wins[:] = self._preferences(step, pairs)

        only_first(self.data.group, judge)
        return self.data.group.sum(wins)

    def _preferences(self, step: int, pairs: Sequence[Lists]) -> np.ndarray:
        judge, source = self.source.judge, self.source
        assert judge is not None, "settings of a judged run open a judge"
        asked = [source.prompt_text(prompt) for prompt, _, _ in pairs]
        a, b = ([source.text(pair[side]) for pair in pairs] for side in (1, 2))
        wins = np.full(len(pairs), 0.5)
        differ = [i for i in range(len(pairs)) if a[i] != b[i]]
        if not differ:
            return wins
        sides = [[texts[i] for i in differ] for texts in (asked, a, b)]
        wins[differ] = judge.prefer(*sides)
        require_replies(judge, *sides)
        if np.isnan(wins[differ]).all():
            raise JudgeError(
                f"{judge.name} had no verdict that can be read on any of the {len(differ)} pairs "
                f"of step {step}: look at what it says (an endpoint's replies are in verdicts)"
            )
        return wins

    def _scores(self, pairs: TokenisedPairs, reference: ReferenceBatch | None = None) -> Scores:
        """All pairs by the reference or, compared with its scores, by the policy."""

        def score(rows: Ints) -> Scores:
            batch = collate(pairs, rows)
            if reference is None:
                return self.policy.score(batch, at_reference=True)
            both = _of_pairs(reference, rows, len(pairs), self.data.weights)
            return self.policy.score(batch, both, self.config).without_pooled()

        plan = scoring_batches(pairs.lengths(), self.config.tokens_per_batch)
        return scored_together(self.data.group, plan, score)

    def _reference(self, pairs: TokenisedPairs) -> ReferenceBatch:
        if not len(pairs):
            width = self.data.d_sae
            none = np.zeros(0, np.float32)
            return ReferenceBatch(none, None if width is None else np.zeros((0, width)), none)
        scores = self._scores(pairs)
        if self.data.d_sae is None:
            return ReferenceBatch(scores.logps)
        return ReferenceBatch(scores.logps, scores.pooled, np.zeros_like(scores.logps))

    def _labelled(self, step: int, pool: Pool) -> Pool:
        """The pool with the label of each pair drawn by the policy: kept with probability σ(u)."""
        if not len(pool.pairs):
            return pool
        scores = self._scores(pool.pairs, pool.reference).astype(np.float64)
        u = objective_terms(numpy_ops, scores, pool.reference.logps, self.config).logits()
        drawn = _uniforms(self.config.seed, step, _LABELS, len(u))
        flipped = np.log(drawn + 1e-300) >= numpy_ops.log_sigmoid(u)
        lists = _lists(pool.pairs, range(len(pool.pairs)))
        swapped = [_swapped(p) if flip else p for p, flip in zip(lists, flipped, strict=True)]
        order = np.arange(2 * len(u)).reshape(2, -1)
        order[:, flipped] = order[::-1, flipped]
        reference = _taken(pool.reference, order.ravel(), None)
        return Pool(pool.steps, pool.places, _pairs(swapped), reference)


def sampled_at_once(longest: int, config: TrainConfig) -> int:
    """Samples drawn in one batch, whose longest prompt has so many tokens."""
    return max(1, config.tokens_per_batch // (longest + config.online_tokens))


def _uniforms(seed: int, step: int, kind: int, count: int) -> np.ndarray:
    """Numbers in [0, 1), (count,), by seed, step and what they are for."""
    return (np.random.PCG64([seed, step, 0, kind]).random_raw(count) >> np.uint64(11)) * 2.0**-53


def _lists(pairs: TokenisedPairs, rows: Iterable[int]) -> list[Lists]:
    return [(p.prompt, p.chosen, p.rejected) for p in (pairs[int(row)] for row in rows)]


def _pairs(lists: Iterable[Lists]) -> TokenisedPairs:
    return TokenisedPairs.from_lists((p.tolist(), a.tolist(), b.tolist()) for p, a, b in lists)


def _swapped(pair: Lists) -> Lists:
    return pair[0], pair[2], pair[1]


def _of_pairs(
    reference: ReferenceBatch, rows: Ints, count: int, weights: np.ndarray | None
) -> ReferenceBatch:
    return _taken(reference, np.concatenate([rows, rows + count]), weights)


def _taken(reference: ReferenceBatch, rows: Ints, weights: np.ndarray | None) -> ReferenceBatch:
    names = ("logps", "pooled", "truncated")
    arrays = {name: getattr(reference, name) for name in names}
    return ReferenceBatch(
        **{name: None if a is None else a[rows] for name, a in arrays.items()}, weights=weights
    )

"""The same measurements of a policy at several times: held-out pairs, texts, its own samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fpo.prompt_text import bare_prompt
from fpo.questionnaire import Questionnaire
from fpo.results import Table
from fpo_core.backend.draws import occurrences
from fpo_core.backend.policy import Policy, Sampling
from fpo_core.config import ObjectiveConfig
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.evaluation.evaluate import Evaluation, distinct, evaluate, sample
from fpo_core.evaluation.greedy_answers import Answer, compared, summary
from fpo_core.evaluation.texts import perplexity
from fpo_core.evaluation.verdict import Findings
from fpo_core.events import Sink, progress, silent
from fpo_core.loss.metric_catalogue import METRICS
from fpo_core.train.paired_data import RunData, spread
from fpo_core.train.state import RunState

TABLE = (
    "raw_accuracy",
    "reward_accuracy",
    "fpo/kl_chosen",
    "fpo/kl_rejected",
    "fpo/kl_margin",
    "rewards/margins",
    "fpo/d_chosen",
    "fpo/d_rejected",
    "fpo/d_margin",
    "oracle",
    "entropy",
    "distinct_1",
    "distinct_2",
    "sample_length",
    "value_kl",
    "perplexity",
    "facts",
    "repetition",
)
"""Metrics that a table of measurements shows, in order."""

Oracle = Callable[[str, str], Mapping[str, float]]
"""Scores a completion of a prompt, both as text; `preferred` is what the pairs prefer."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a `Measurer` came to; None stands for what it was not asked for."""

    evaluation: Evaluation
    chosen_tokens: float
    """Mean |y| of the chosen completions."""
    perplexity: float | None = None
    entropy: float | None = None
    """Mean next-token entropy over the policy's own samples, in nats."""
    sample_length: float | None = None
    """Mean tokens of a sample."""
    distinct_1: float | None = None
    distinct_2: float | None = None
    """Distinct tokens, and pairs of tokens, over all of the samples."""
    value_kl: float | None = None
    """Mean Σ KL over a sample's tokens of how values weighed them, in nats."""
    oracle: float | None = None
    """Mean of the samples' `preferred` score by the judge."""
    oracle_scores: dict[str, float] = field(default_factory=dict)
    """Means of all its scores."""
    sample_scores: list[float] = field(default_factory=list)
    """The `preferred` score of each sample."""
    completions: list[str] = field(default_factory=list)
    facts: int | None = None
    """General questions whose greedy answer is right."""
    questions: int | None = None
    """Those of them whose right answer is known."""
    repetition: float | None = None
    """Mean share of repeated 4-grams in the greedy answers."""
    answers: list[Answer] = field(default_factory=list)
    """Greedy answers to held-out prompts and general questions."""

    def to_mapping(self) -> dict[str, Any]:
        """The measurements as JSON values."""
        values = {
            k: v
            for k, v in vars(self).items()
            if k not in ("evaluation", "answers") and v not in (None, [], {})
        }
        return self.evaluation.to_mapping() | values

    def with_samples(self, before: "Measurements | None") -> dict[str, Any]:
        """`to_mapping`, and under `samples` the greedy answers beside those of before.

        The shape of a sample is that of `fpo_core.evaluation.greedy_answers.compared`.
        """
        samples = compared([] if before is None else before.answers, self.answers)
        return self.to_mapping() | ({"samples": samples} if samples else {})


def measurements_table(
    before: Measurements | None, after: Measurements, below: Sequence[str] = ()
) -> Table:
    """Measurements side by side."""
    return table_of(None if before is None else before.to_mapping(), after.to_mapping(), below)


def table_of(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], below: Sequence[str] = ()
) -> Table:
    """The same of mappings; the reward accuracy says nothing of one model alone."""
    sides = [side for side in (before, after) if side is not None]
    names = [
        name
        for name in TABLE
        if sides[-1].get(name) is not None and not (before is None and name == "reward_accuracy")
    ]
    rows = [
        (METRICS[name].label, *(_cell(name, side.get(name)) for side in sides)) for name in names
    ]
    head = ("", "before", "after") if before is not None else ("", "value")
    return Table(head, rows, (f"{after['pairs']} pairs", *below))


def _cell(name: str, value: Any) -> str:
    if isinstance(value, Mapping):  # a share of pairs with its interval
        value, low, high = (METRICS[name].text(value[key]) for key in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"
    return "–" if value is None else METRICS[name].text(value)


@dataclass(frozen=True, kw_only=True)
class Measurer:
    """Takes the same measurements of a policy at several times."""

    data: RunData
    split: TokenisedPairs
    objective: ObjectiveConfig
    pairs: int
    tokens_per_batch: int
    tokenizer: Any
    texts: Sequence[str] = ()
    text_width: int = 1024
    samples: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    sample_batch: int = 8
    questionnaire: Questionnaire | None = None
    judge: Oracle | None = None
    sink: Sink = silent
    """Hears of every batch."""

    def measure(self, policy: Policy, *, kl: bool = False) -> Measurements:
        """Everything at once; `kl` needs the policy's `set_reference` before."""
        evaluation = evaluate(
            policy,
            self.data,
            self.split,
            self.objective,
            pairs=self.pairs,
            tokens_per_batch=self.tokens_per_batch,
            kl=kl,
            emit=self.sink,
        )
        value = self.perplexity(policy) if self.texts else None
        rows = spread(len(self.split), self.pairs)
        return Measurements(
            evaluation=evaluation,
            chosen_tokens=float(np.mean([len(self.split[int(row)].chosen) for row in rows])),
            perplexity=value,
            **self._answered(policy),
            **self._sampled(policy),
        )

    def prompts(self) -> list[np.ndarray]:
        """Prompts spread over the split."""
        return [self.split[int(i)].prompt for i in spread(len(self.split), self.samples)]

    def prompt_texts(self) -> list[str]:
        """The same prompts as text, as a judge reads them: without the chat template's."""
        return [bare_prompt(self.tokenizer, prompt) for prompt in self.prompts()]

    def perplexity(self, policy: Policy) -> float:
        """Of the texts."""
        width = self.text_width
        return perplexity(policy, self.tokenizer, self.texts, self.tokens_per_batch, width)

    def _answered(self, policy: Policy) -> dict[str, Any]:
        if self.questionnaire is None:
            return {}
        answers = self.questionnaire.answers(policy, self.sink)
        return {"answers": answers, **summary(answers)}

    def _sampled(self, policy: Policy) -> dict[str, Any]:
        if not self.samples:
            return {}
        prompts = self.prompts()
        starts = range(0, len(prompts), self.sample_batch)
        parts, numbers = [], occurrences(prompts)
        sampling, told = self.sampling, list[np.ndarray]()
        if sampling.guide is not None:
            sampling = replace(sampling, guide=replace(sampling.guide, on_kl=told.append))
        for start in starts:
            batch = slice(start, min(start + self.sample_batch, len(prompts)))
            parts.append(sample(policy, prompts[batch], sampling, numbers[batch]))
            progress(self.sink, "samples", batch.stop, len(prompts))
        completions = [ids for part in parts for ids in part.completions]
        texts = [self._text(ids) for ids in completions]
        sizes = [part.length * len(part.completions) for part in parts]
        result: dict[str, Any] = {
            "entropy": float(np.average([part.entropy for part in parts], weights=sizes)),
            "sample_length": sum(sizes) / len(prompts),
            "distinct_1": distinct(completions, 1),
            "distinct_2": distinct(completions, 2),
            "completions": texts,
            "value_kl": float(np.concatenate(told).mean()) if told else None,
        }
        if self.judge is not None:
            pairs = zip(prompts, texts, strict=True)
            scores = [self.judge(self._text(prompt), text) for prompt, text in pairs]
            means = {name: float(np.mean([s[name] for s in scores])) for name in scores[0]}
            result |= {"oracle": means["preferred"], "oracle_scores": means}
            result["sample_scores"] = [round(float(s["preferred"]), 4) for s in scores]
        return result

    def _text(self, ids: np.ndarray) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def findings(
    before: Measurements | None,
    after: Measurements,
    objective: ObjectiveConfig,
    *,
    held_out: bool,
    state: RunState | None = None,
    early_end: str | None = None,
) -> Findings:
    """The numbers that a verdict rests on; without `before` there is nothing to compare with.

    `state` is that of a run at its end; an evaluation has none.
    """
    metrics = after.evaluation.metrics
    ratio = None if state is None else state.constraint_ratio
    kl_chosen = metrics.get("fpo/kl_chosen")
    return Findings(
        raw_before=None if before is None else before.evaluation.raw_accuracy.value,
        raw=after.evaluation.raw_accuracy,
        reward=None if before is None else after.evaluation.reward_accuracy,
        reward_chosen=metrics["rewards/chosen"],
        reward_rejected=metrics["rewards/rejected"],
        kl_chosen=kl_chosen,
        kl_per_token=None if kl_chosen is None else kl_chosen / after.chosen_tokens,
        kl_rejected=metrics.get("fpo/kl_rejected"),
        d_chosen=metrics.get("fpo/d_chosen"),
        d_rejected=metrics.get("fpo/d_rejected"),
        perplexity_before=None if before is None else before.perplexity,
        perplexity=after.perplexity,
        facts_before=None if before is None else before.facts,
        facts=after.facts,
        questions=after.questions,
        repetition_before=None if before is None else before.repetition,
        repetition=after.repetition,
        alpha=objective.constraint_weight,
        constrained="KL" if objective.needs_kl else "D",
        constraint_ratio=metrics.get("fpo/constraint_ratio") if ratio is None else ratio,
        constraint_share=None if state is None else state.constraint_share,
        d_floor=None if state is None else state.d_floor,
        held_out=held_out,
        early_end=early_end,
    )

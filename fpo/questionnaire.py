"""The same prompts put to a policy at several times, answered greedily."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fpo.prompt_text import bare_prompt, question_ids
from fpo_core.backend.policy import Policy, Sampling
from fpo_core.config import DataConfig, MeasureConfig
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.data.tokenise import DATE
from fpo_core.data.tokenizer import Tokenizer
from fpo_core.evaluation.greedy_answers import Answer, Question, repetition
from fpo_core.events import Sink, progress
from fpo_core.train.paired_data import spread

_BATCH = 16


class _Count:
    """Reports tokens of answers as they come; those that end early are skipped afterwards."""

    def __init__(self, sink: Sink, total: int) -> None:
        self._sink, self._done, self._total = sink, 0, total

    def __call__(self, tokens: Mapping[int, int]) -> None:
        """Take note of a token of each answer that goes on."""
        self.reach(self._done + len(tokens))

    def reach(self, done: int) -> None:
        """Report so many tokens as done."""
        self._done = done
        progress(self._sink, "greedy answers: token", done, self._total)


@dataclass(frozen=True)
class Questionnaire:
    """Questions with their prompts as token ids: some held-out prompts, then general ones."""

    questions: Sequence[Question]
    prompts: Sequence[np.ndarray]
    tokenizer: Tokenizer
    sampling: Sampling

    @classmethod
    def of(
        cls,
        config: MeasureConfig,
        general: Sequence[Question],
        split: TokenisedPairs,
        tokenizer: Tokenizer,
        stop: tuple[int, ...],
    ) -> "Questionnaire":
        """Some prompts spread over a split, and the general questions; none of both where
        `config.greedy_answers` is 0.
        """
        asked = general if config.greedy_answers else ()
        held_out = [split[int(row)].prompt for row in spread(len(split), config.greedy_answers)]
        date = (config.template_date if isinstance(config, DataConfig) else None) or DATE
        texts = [Question(bare_prompt(tokenizer, ids), kind="held-out") for ids in held_out]
        ids = [question_ids(tokenizer, question.prompt, date=date) for question in asked]
        # At temperature 0 the likeliest token is taken, whatever the seed.
        sampling = Sampling(config.answer_tokens, temperature=0.0, stop=stop)
        return cls([*texts, *asked], [*held_out, *ids], tokenizer, sampling)

    def answers(self, policy: Policy, sink: Sink) -> list[Answer]:
        """The policy's greedy answers, in order."""
        count = _Count(sink, len(self.prompts) * self.sampling.max_tokens)
        answers = []
        for batch in self._batches():
            completions = policy.generate([self.prompts[i] for i in batch], self.sampling, count)
            for i, ids in zip(batch, completions, strict=True):
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                answers.append(Answer(self.questions[i], text, repetition(ids)))
            count.reach(len(answers) * self.sampling.max_tokens)
        return answers

    def _batches(self) -> list[list[int]]:
        """Held-out prompts apart from general ones, which are far shorter: padding is work."""
        places = range(len(self.questions))
        kinds = dict.fromkeys(question.kind for question in self.questions)
        groups = [[i for i in places if self.questions[i].kind == kind] for kind in kinds]
        return [group[at : at + _BATCH] for group in groups for at in range(0, len(group), _BATCH)]

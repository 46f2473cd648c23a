"""Answers to a file of prompts, batch by batch; a file that is begun is gone on with."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fpo.generation import Completion
from fpo.model_setup import ModelSetup
from fpo.prompt_text import prompt_ids, prompt_text
from fpo.results import Result
from fpo.samplers import frozen_sampler
from fpo.workflow import workflow
from fpo_core.backend.draws import occurrences
from fpo_core.config import GenerateConfig, PromptConfig
from fpo_core.data.cache import fingerprint
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, note, progress
from fpo_core.io.atomic import writing
from fpo_core.io.lock import locked_by
from fpo_core.io.ownership import check_inputs
from fpo_core.io.regular import open_regular
from fpo_core.judges.answer_files import as_lines, read_prompts
from fpo_core.judges.best_worst import scores_of
from fpo_core.judges.judge import Judge

_DECIDING = (
    *("max_tokens", "temperature", "top_p", "seed", "samples"),
    *("system_prompt", "ignore_chat_template", "goal"),
)
"""Settings on which answers depend, besides the model and where it runs."""


@dataclass(frozen=True)
class AnswerFile(Result):
    """Answers to a file of prompts: rows of prompt, completion, tokens, ended, sample, settings."""

    out: Path
    backend: str
    model: str
    adapter: str | None
    prompts: int
    answers: int
    generated: int
    """Answers of this call; the others were there."""


@dataclass(frozen=True)
class AnswerPlan:
    """Prompts in batches, and the file of their answers, perhaps with a judge's scores."""

    path: Path
    prompts: list[str]
    setup: ModelSetup
    config: PromptConfig
    judge: Judge | None = None
    keep_ids: bool = False
    """Whether rows hold the answers' token ids too."""

    @cached_property
    def ids(self) -> list[np.ndarray]:
        """The prompts as token ids, (t,) each."""
        tokenizer, config = self.setup.tokenizer, self.config
        texts = [prompt_text(tokenizer, prompt, config) for prompt in self.prompts]
        return [prompt_ids(tokenizer, text, config) for text in texts]

    @property
    def settings(self) -> str:
        """A digest of all that answers depend on, in every row."""
        values = {name: getattr(self.config, name) for name in _DECIDING}
        values |= self.setup.key.to_mapping()
        values |= {"device": self.config.device, "dtype": self.config.dtype}
        values |= self.setup.values_key
        if (other := self.setup.other_sampler) is not None:
            values["sampler"] = other.sampler
        return fingerprint(values | ({} if self.judge is None else {"judge": self.judge.name}))

    def complete(self, sink: Sink) -> int:
        """Answer every prompt that the file lacks; how many answers are new.

        Raises ConfigError where it holds anything else than answers under the same settings.
        """
        with locked_by(self.path.with_name(f".{self.path.name}.lock"), "out"):
            done = self._resume()
            if done:
                note(sink, f"{done} of {len(self.prompts)} prompts are done")
            if done < len(self.prompts):
                self._answer(done, sink)
        return (len(self.prompts) - done) * self.config.samples

    def rows(self) -> list[dict[str, Any]]:
        """The answers of a complete file, those of a prompt one after the other."""
        with open_regular(self.path) as file:
            return [json.loads(line) for line in file]

    def _resume(self) -> int:
        """Cut the file behind its last whole batch; how many prompts are answered there."""
        if not self.path.exists():
            return 0
        with open_regular(self.path) as file:
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline was cut short
        samples, settings = self.config.samples, self.settings
        for number, line in enumerate(lines, 1):
            self._check(line, number, settings)
        if len(lines) > len(self.prompts) * samples:
            raise ConfigError(f"{self.path} holds more answers than are asked for: name another")
        done = len(lines) // samples
        if done < len(self.prompts):  # the batches of an undisturbed run, to the last bit
            done -= done % self.config.batch_size
        with writing(self.path), self.path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in lines[: done * samples]))
        return done

    def _check(self, line: bytes, number: int, expected: str) -> None:
        try:
            row = json.loads(line)
            settings, prompt = row["settings"], row["prompt"]
        except (ValueError, KeyError, TypeError):
            settings, prompt = None, None
        place = min((number - 1) // self.config.samples, len(self.prompts) - 1)
        if settings != expected or prompt != self.prompts[place]:
            raise ConfigError(
                f"{self.path} line {number} is not of these prompts, model and settings, so it is "
                "not gone on with: name another file, or remove it"
            )

    def _answer(self, done: int, sink: Sink) -> None:
        setup, config, settings = self.setup, self.config, self.settings
        setup.warn_of_base(config.adapter, sink)
        longest = max(map(len, self.ids)) + config.max_tokens
        sampler, sampling = frozen_sampler(setup, longest), setup.sampling(config)
        ids = [prompt for prompt in self.ids for _ in range(config.samples)]
        numbers = occurrences(ids)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for start in range(done, len(self.prompts), config.batch_size):
            end = min(start + config.batch_size, len(self.prompts))
            batch = slice(start * config.samples, end * config.samples)
            sampled = sampler.generate(ids[batch], sampling, numbers=numbers[batch])
            completions = [Completion.of(setup, tokens) for tokens in sampled]
            rows = [
                {
                    "prompt": self.prompts[start + i // config.samples],
                    "completion": completion.text,
                    "tokens": completion.tokens,
                    "ended": completion.ended,
                    "sample": i % config.samples,
                    "settings": settings,
                }
                for i, completion in enumerate(completions)
            ]
            if self.keep_ids:
                rows = [r | {"ids": ids.tolist()} for r, ids in zip(rows, sampled, strict=True)]
            if self.judge is not None:
                self._add_scores(rows, self.prompts[start:end], self.judge)
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(as_lines(rows))
            progress(sink, "prompts", end, len(self.prompts))

    def _add_scores(self, rows: list[dict[str, Any]], prompts: list[str], judge: Judge) -> None:
        size = self.config.samples
        texts = [row["completion"] for row in rows]
        groups = [texts[at : at + size] for at in range(0, len(texts), size)]
        scores = [score for group in scores_of(judge, prompts, groups) for score in group]
        for row, score in zip(rows, scores, strict=True):
            row["score"] = None if math.isnan(score) else score


@workflow(GenerateConfig)
def answer_prompts(config: GenerateConfig, sink: Sink) -> AnswerFile:
    """Let a model answer every prompt of a file, batch by batch, with or without an adapter.

    Each prompt is a user message, as in `generate`. Answers are appended to `out`; stopped at
    any point, the same call goes on. Raises ConfigError where `out` holds anything else than
    answers to these prompts under these settings.
    """
    if config.prompts is None or config.out is None:
        raise ConfigError("prompt is set, which is no file: call generate, or set prompts")
    path = Path(config.out)
    check_inputs([path], {"prompts": config.prompts, "model": config.model}, "out")
    prompts = [prompt.text for prompt in read_prompts(Path(config.prompts))]
    plan = AnswerPlan(path, prompts, ModelSetup(config), config)
    generated = plan.complete(sink)
    return AnswerFile(
        out=path,
        backend=plan.setup.backend,
        model=config.model,
        adapter=config.adapter,
        prompts=len(plan.prompts),
        answers=len(plan.prompts) * config.samples,
        generated=generated,
    )

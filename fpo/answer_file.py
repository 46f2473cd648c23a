"""Answers to a file of prompts, batch by batch; a file that is begun is gone on with."""

import json
from dataclasses import dataclass
from pathlib import Path

from fpo.generation import Completion
from fpo.model_setup import FROZEN, ModelSetup
from fpo.prompt_text import prompt_ids, prompt_text
from fpo.results import Result
from fpo.workflow import workflow
from fpo_core.config import GenerateConfig
from fpo_core.data.cache import fingerprint
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, note, progress
from fpo_core.io.atomic import writing
from fpo_core.io.lock import locked_by
from fpo_core.io.ownership import check_inputs
from fpo_core.io.regular import open_regular
from fpo_core.judges.answer_files import as_lines, read_prompts

_DECIDING = (
    *("max_tokens", "temperature", "top_p", "seed", "samples", "batch_size"),
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
class _Plan:
    """The prompts in batches, and the file of their answers."""

    path: Path
    prompts: list[str]
    size: int
    """Prompts of a batch."""
    samples: int
    settings: str
    """A digest of all that answers depend on, in every row."""

    def starts(self, done: int) -> range:
        """The first prompt of each batch that is left."""
        return range(done * self.size, len(self.prompts), self.size)

    def whole_batches(self, rows: int) -> int:
        """Batches whose answers are all among the first `rows` rows."""
        if rows == len(self.prompts) * self.samples:
            return -(-len(self.prompts) // self.size)
        return rows // (self.size * self.samples)

    def resume(self) -> int:
        """Cut the file behind its last whole batch; how many there are.

        Raises ConfigError where it holds anything else than answers under the same settings.
        """
        if not self.path.exists():
            return 0
        with open_regular(self.path) as file:
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline was cut short
        for number, line in enumerate(lines, 1):
            self._check(line, number)
        if len(lines) > len(self.prompts) * self.samples:
            raise ConfigError(f"{self.path} holds more answers than are asked for: name another")
        done = self.whole_batches(len(lines))
        keep = lines[: min(len(self.prompts), done * self.size) * self.samples]
        with writing(self.path), self.path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in keep))
        return done

    def _check(self, line: bytes, number: int) -> None:
        try:
            row = json.loads(line)
            settings, prompt = row["settings"], row["prompt"]
        except (ValueError, KeyError, TypeError):
            settings, prompt = None, None
        asked = self.prompts[min((number - 1) // self.samples, len(self.prompts) - 1)]
        if settings != self.settings or prompt != asked:
            raise ConfigError(
                f"{self.path} line {number} is not of these prompts, model and settings, so it is "
                "not gone on with: name another file, or remove it"
            )


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
    setup = ModelSetup(config)
    plan = _Plan(path, prompts, config.batch_size, config.samples, _digest(setup, config))
    with locked_by(path.with_name(f".{path.name}.lock"), "out"):
        done = plan.resume()
        left = plan.starts(done)
        if done:
            note(sink, f"{min(done * plan.size, len(prompts))} of {len(prompts)} prompts are done")
        if len(left):
            _answer(setup, config, plan, left, sink)
    return AnswerFile(
        out=path,
        backend=setup.backend,
        model=config.model,
        adapter=config.adapter,
        prompts=len(prompts),
        answers=len(prompts) * plan.samples,
        generated=(len(prompts) - left.start) * plan.samples if len(left) else 0,
    )


def _digest(setup: ModelSetup, config: GenerateConfig) -> str:
    values = {name: getattr(config, name) for name in _DECIDING}
    return fingerprint(
        values | setup.key.to_mapping() | {"device": config.device, "dtype": config.dtype}
    )


def _answer(
    setup: ModelSetup, config: GenerateConfig, plan: _Plan, left: range, sink: Sink
) -> None:
    setup.warn_of_base(config.adapter, sink)
    policy = setup.policy(FROZEN)
    sampling = setup.sampling(config)
    for start in left:
        batch = plan.prompts[start : start + plan.size]
        texts = [prompt_text(setup.tokenizer, prompt, config) for prompt in batch]
        read = [prompt_ids(setup.tokenizer, text, config) for text in texts]
        ids = [prompt for prompt in read for _ in range(plan.samples)]
        sampled = policy.generate(ids, sampling.of_batch(start))
        completions = [Completion.of(setup, tokens) for tokens in sampled]
        rows = [
            {
                "prompt": batch[i // plan.samples],
                "completion": completion.text,
                "tokens": completion.tokens,
                "ended": completion.ended,
                "sample": i % plan.samples,
                "settings": plan.settings,
            }
            for i, completion in enumerate(completions)
        ]
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(plan.path), plan.path.open("a", encoding="utf-8") as file:
            file.write(as_lines(rows))
        progress(sink, "prompts", start + len(batch), len(plan.prompts))

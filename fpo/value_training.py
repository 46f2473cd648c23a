"""Training a value function: samples of the base model, a judge's rewards, TD(λ)."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpo.answer_file import AnswerPlan
from fpo.backends import build_policy
from fpo.judge_choice import JudgeLike, choose_judge
from fpo.model_setup import ModelSetup
from fpo.results import Result, Table, shown
from fpo.run_checks import writing_output
from fpo.workflow import workflow
from fpo_core.adapters.lora import Adapter, select_blocks
from fpo_core.adapters.reader import VALUE_FILE
from fpo_core.adapters.writer import CONFIG_FILE, MLX_FILE, PEFT_FILE
from fpo_core.backend.policy import Policy
from fpo_core.config import AdapterConfig, StepConfig, ValueTrainConfig
from fpo_core.errors import ConfigError, JudgeError
from fpo_core.events import Sink, note, warn
from fpo_core.io.atomic import write_into_folder
from fpo_core.io.ownership import check_foreign, check_inputs
from fpo_core.judges.answer_files import read_prompts
from fpo_core.loss.values import VALUE_HEAD
from fpo_core.values.calibration import explained
from fpo_core.values.episodes import Episodes
from fpo_core.values.folder import HEAD_FILE, StoredValue, save_value
from fpo_core.values.loop import learn, values_of

SAMPLES_FILE = "samples.jsonl"
_HELD_OUT = 7
"""What held-out prompts are drawn for, in the entropy of their generator."""


@dataclass(frozen=True)
class TrainedValue(Result):
    """A value function, and how well it foretells the rewards of held-out prompts' samples."""

    output: Path
    backend: str
    model: str
    adapter: str | None
    judge: str
    prompts: int
    samples: int
    generated: int
    """Samples of this call; the others were there."""
    unended: int
    """Samples left out: `max_tokens` cut them, so their reward is not that of a whole text."""
    no_verdict: int
    """Samples left out: the judge came to no verdict."""
    mean_reward: float
    reward_deviation: float
    steps: int
    loss_first: float
    loss_last: float
    held_out: int
    """Samples of prompts that took no part in training."""
    explained: dict[str, float]
    """Their R² by the value at the prompt and at a quarter, half, … and the end of a text."""

    def table(self) -> Table:
        """A number a row."""
        names = ("prompts", "samples", "unended", "no_verdict", "mean_reward", "reward_deviation")
        names += ("steps", "loss_first", "loss_last", "held_out")
        rows = [(name.replace("_", " "), shown(getattr(self, name))) for name in names]
        rows += [(f"R² at {k.replace('_', ' ')}", shown(v)) for k, v in self.explained.items()]
        return Table(("", ""), rows)


@workflow(ValueTrainConfig)
def train_value(config: ValueTrainConfig, sink: Sink, by: JudgeLike | None = None) -> TrainedValue:
    """Train a value function of a model: the reward that a text is expected to end with.

    Samples of the model, with or without an adapter, are judged and kept in `output` batch by
    batch: stopped there, the same call goes on and judges nothing twice; stopped in training, it
    trains again. The result is an adapter with a head, which `generate`, `sample` and `evaluate`
    take as `value`. `by` is a judge, or a function of a prompt and a completion, in place of the
    setting. Raises JudgeError where the judge fails, ConfigError where there is nothing to learn.
    """
    output = Path(config.output)
    _check_output(output, config)
    setup = ModelSetup(config)
    judge = choose_judge(config, config, sink, config.cache, by)
    prompts = [prompt.text for prompt in read_prompts(Path(config.prompts))]
    with writing_output(config.output, setup.group):
        output.mkdir(parents=True, exist_ok=True)
        plan = AnswerPlan(output / SAMPLES_FILE, prompts, setup, config, judge, keep_ids=True)
        generated = plan.complete(sink)
        episodes, counts = _episodes(plan)
        train, held_out = _split(episodes, config)
        _check(train, counts, len(prompts) * config.samples, sink)
        scaling = float(train.rewards.mean()), float(train.rewards.std())
        note(sink, f"training on {len(train)} samples")
        policy = _policy(setup, config)
        scaled = Episodes(
            train.prompts, train.completions, (train.rewards - scaling[0]) / scaling[1]
        )
        learnt = learn(policy, scaled, config, sink)
        foretold = _explained(policy, held_out, scaling, config) if len(held_out) else {}
        facts = {"judge": judge.name, "model": config.model, "adapter": config.adapter}
        facts |= {"mean": scaling[0], "deviation": scaling[1], "lambda": config.value_lambda}
        # JSON has no NaN, which held-out rewards that do not differ give.
        told = {name: value if math.isfinite(value) else None for name, value in foretold.items()}
        facts |= {"samples": len(train), "held_out": len(held_out), "explained": told}
        facts |= {"max_tokens": config.max_tokens, "seed": config.seed}
        value = _stored(policy, scaling[1], setup, config, facts)
        write_into_folder(
            output,
            lambda folder: save_value(folder, value, base_model=config.model, model=setup.model),
        )
    return TrainedValue(
        output=output,
        backend=setup.backend,
        model=config.model,
        adapter=config.adapter,
        judge=judge.name,
        prompts=len(prompts),
        samples=len(prompts) * config.samples,
        generated=generated,
        **counts,
        mean_reward=scaling[0],
        reward_deviation=scaling[1],
        **asdict(learnt),
        held_out=len(held_out),
        explained=foretold,
    )


def _check_output(output: Path, config: ValueTrainConfig) -> None:
    """Nothing that is read is written over, nor anything of somebody else's."""
    files = [output / name for name in (CONFIG_FILE, PEFT_FILE, MLX_FILE, HEAD_FILE, VALUE_FILE)]
    inputs = {name: getattr(config, name) for name in ("prompts", "model", "adapter")}
    check_inputs([*files, output / SAMPLES_FILE], inputs, folder=output)
    check_foreign(files, lambda _: (output / VALUE_FILE).is_file())


def _episodes(plan: AnswerPlan) -> tuple[Episodes, dict[str, int]]:
    """The samples that ended and have a reward, those of a prompt one after the other."""
    counts = {"unended": 0, "no_verdict": 0}
    prompts, completions, rewards = [], [], []
    for number, row in enumerate(plan.rows()):
        if row["score"] is None:
            counts["no_verdict"] += 1
        elif not row["ended"]:
            counts["unended"] += 1
        else:
            prompts.append(plan.ids[number // plan.config.samples])
            completions.append(np.array(row["ids"], np.int32))
            rewards.append(row["score"])
    if not np.isfinite(rewards).all():
        raise JudgeError("the judge gave a reward that is not finite, expected numbers: correct it")
    return Episodes(prompts, completions, np.array(rewards, np.float64)), counts


def _split(episodes: Episodes, config: ValueTrainConfig) -> tuple[Episodes, Episodes]:
    """Samples to learn from, and those of a share of the prompts, which are drawn by the seed."""
    texts = [ids.tobytes() for ids in episodes.prompts]
    distinct = sorted(set(texts))
    order = np.argsort(np.random.PCG64([config.seed, _HELD_OUT]).random_raw(len(distinct)))
    count = math.floor(config.valid_fraction * len(distinct))
    out = {distinct[i] for i in order[:count]}
    sides = [[i for i, text in enumerate(texts) if (text in out) == held] for held in (False, True)]
    return episodes.taken(sides[0]), episodes.taken(sides[1])


def _check(train: Episodes, counts: dict[str, int], samples: int, sink: Sink) -> None:
    if counts["unended"] > 0.1 * samples:
        warn(
            sink,
            f"{counts['unended']} of {samples} samples do not end within max_tokens and teach "
            "nothing: raise it",
        )
    if len(set(train.rewards.tolist())) < 2:
        raise ConfigError(
            f"{len(train)} samples to learn from have rewards that do not differ, expected some "
            "that do: take more prompts or samples, a higher max_tokens, or another judge"
        )


def _policy(setup: ModelSetup, config: ValueTrainConfig) -> Policy:
    """The bare model with an adapter of its own and the head."""
    parts = (setup.backend, setup.model.path, setup.computing, config.only(AdapterConfig), None)
    return build_policy(*parts, step=StepConfig(plain=True), value_head=True)


def _explained(
    policy: Policy, held_out: Episodes, scaling: tuple[float, float], config: ValueTrainConfig
) -> dict[str, float]:
    values = values_of(policy, held_out, config.tokens_per_batch)
    return explained([scaling[0] + scaling[1] * v for v in values], held_out.rewards)


def _stored(
    policy: Policy,
    deviation: float,
    setup: ModelSetup,
    config: ValueTrainConfig,
    facts: dict[str, Any],
) -> StoredValue:
    weights = policy.trained()
    head = weights.pop(VALUE_HEAD) * deviation
    blocks = len(select_blocks(setup.model.layers, config.num_layers))
    adapter = Adapter(config.rank, config.scale, config.dropout, blocks, weights)
    return StoredValue(adapter, head, facts)

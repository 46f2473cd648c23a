"""Whether a run may resume a checkpoint: all that its result depends on must be the same."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fpo_core.config import DataConfig, FeatureConfig, TrainConfig
from fpo_core.errors import ConfigError, TrainingError
from fpo_core.train.checkpoints import Checkpoint
from fpo_core.train.run_folder import checkpoints_in, is_finished

PLACES = ("model", "adapter", "data", "sae", "feature_weights", "revision", "template_date")
"""Settings whose contents are compared instead: paths, names, and a date that texts may hold."""
FREE = frozenset(
    (
        *("output", "cache", "reference", "rows_per_shard", "text", "trust_remote_code", "strict"),
        *("resume", "allow_change", "save_every", "save_total_limit", "steps_per_report"),
        *("step0_pairs", "nonfinite_limit", "preflight", "process_timeout", "dry_run"),
        *("report_to", "preset", "push_to_hub", "report", "shown_pairs", "shown_features"),
        *("shard", "cpu_offload"),
        *("greedy_answers", "prompts", "answer_tokens", "verdicts", "judge_key_env"),
        *("judge_concurrency", "judge_timeout", "judge_retries", "vllm_memory"),
    )
)
"""Settings that the result does not depend on."""
MACHINE = ("backend", "device", "dtype")
"""Settings compared as resolved (`Origin.made_with`), since they may be auto."""
_COVERED_BY = {
    "data": tuple(DataConfig.names()),
    "sae": tuple(FeatureConfig.names()),
    "model": ("model", "revision"),
}
"""Settings whose change explains another fingerprint, which then is no change of its own."""


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was."""

    key: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"{self.key} was {self.was}, is {self.now}"


def as_begun(config: TrainConfig, checkpoint: Checkpoint) -> TrainConfig:
    """The settings of a resumed run, less the default preset where it began without a preset.

    So runs of before there was one go on by the command that they were begun with.
    """
    was = checkpoint.origin.config
    if (was.get("preset") or "none") != "none" or config.preset != "default":
        return config
    before = {field.name: field.default for field in fields(config)} | was
    return replace(config, preset="none", **{name: before[name] for name in config.of_preset})


def check_unchanged(
    checkpoint: Checkpoint,
    config: TrainConfig,
    contents: Mapping[str, str | None],
    causes: Mapping[str, str] | None = None,
) -> None:
    """Raise ConfigError listing every setting that differs and is not allowed to.

    `causes` says of a fingerprint what may have changed it besides the settings.
    """
    was = checkpoint.origin
    now = config.to_mapping()
    skipped = FREE | {*PLACES, *MACHINE}
    if config.max_perplexity is not None:  # the run may end by what it measures on these texts
        skipped -= {"text"}
    # A setting that is younger than the checkpoint is unchanged at its default, as far as the
    # contents compared below are.
    before = {field.name: field.default for field in fields(config)} | was.config
    changes = [
        Change(key, _shown(was.config.get(key)), _shown(value))
        for key, value in now.items()
        if key not in skipped and before.get(key) != value
    ]
    explained = {change.key for change in changes} | config.allowed_changes()
    for key, content in contents.items():
        if was.fingerprints.get(key) != content and explained.isdisjoint(
            _COVERED_BY.get(key, (key,))
        ):
            cause = (causes or {}).get(key, "")
            before = f"{_shown(was.config.get(key))} with other contents{cause}"
            changes.append(Change(key, before, _shown(now[key])))
    _refuse(checkpoint, changes, config.allowed_changes())


def check_machine(checkpoint: Checkpoint, config: TrainConfig, now: Mapping[str, Any]) -> None:
    """Raise ConfigError where precision or dropout would differ from the checkpoint's.

    `now` is `Origin.made_by` of this run.
    """
    # Without dropout another backend, device or number of processes computes the same numbers, up
    # to rounding; dropout is drawn by the backend, for each process.
    was = checkpoint.origin.made_with
    names = (*MACHINE, "processes") if config.dropout else ("dtype",)
    differing = (name for name in names if was[name] != now[name])
    changes = [Change(name, _shown(was[name]), _shown(now[name])) for name in differing]
    _refuse(checkpoint, changes, config.allowed_changes())


def _refuse(checkpoint: Checkpoint, changes: list[Change], allowed: Collection[str]) -> None:
    refused = [change for change in changes if change.key not in allowed]
    if refused:
        keys = ",".join(change.key for change in refused)
        raise ConfigError(
            f"{checkpoint.folder} was made with other settings ({'; '.join(map(str, refused))}): "
            f"put them back, or go on all the same with allow_change {keys}"
        )


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def find_checkpoint(config: TrainConfig, warn: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint to resume where `resume` is set; None for a new run, in a folder without any.

    Raises ConfigError where a new run would overwrite another's checkpoints, TrainingError where
    there is nothing to resume.
    """
    checkpoints = checkpoints_in(Path(config.output))
    if config.resume:
        return checkpoints.newest(warn)
    steps = checkpoints.steps()
    if steps:
        raise ConfigError(
            f"{config.output} holds a run with checkpoints, the last of step {steps[-1]}: go on "
            "with resume, choose another output, or delete that folder first"
        )
    return None


def check_unfinished(
    checkpoint: Checkpoint, config: TrainConfig, steps: int, *, described: bool = True
) -> None:
    """Raise TrainingError where no step is left, nor the end of the run to be `described`."""
    at = checkpoint.state.step
    early = checkpoint.state.out_of_patience(config.early_stopping)
    ended = described and is_finished(Path(config.output))
    if at > steps or ((at == steps or early) and ended):
        setting = "early_stopping" if early and at < steps else "iters or epochs"
        raise TrainingError(
            f"the run in {config.output} ended after {at} of {steps} steps, so nothing is left: to "
            f"train longer, raise {setting} and name it in allow_change"
        )

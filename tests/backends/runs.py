"""Whole runs of the training loop on the tiny model, in a folder of their own."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import ALONE, Group, only_first
from fpo_core.config import TrainConfig
from fpo_core.data.batches import Batch
from fpo_core.data.token_store import TokenisedPairs
from fpo_core.events import Event, JsonlLog, fan_out, silent
from fpo_core.judges.judge import FunctionJudge, Judge
from fpo_core.models.folder import ModelFolder
from fpo_core.reference.build import extend_store, store_key
from fpo_core.reference.reader import ReferenceStore
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from fpo_core.train.degrees import Degrader
from fpo_core.train.drift_watch import DriftWatch
from fpo_core.train.kl_reference import hold_reference
from fpo_core.train.loop import train
from fpo_core.train.online import OnlineSource
from fpo_core.train.paired_data import RunData
from fpo_core.train.resume import check_unchanged, find_checkpoint
from fpo_core.train.run_folder import RunFolder
from tests.backends.support import HIDDEN, UNTRAINED, open_policy
from tests.helpers import random_pairs, random_sae

TIMES = {"tokens_per_second", "seconds_per_step", "seconds"}
TIMES |= {"peak_memory", "active_memory", "cache_memory"}
TIMES |= {f"{kind}_seconds" for kind in ("sampling", "judging", "scoring", "training")}
"""What may differ between the logs of equal runs."""


LONGER = FunctionJudge(lambda prompt, text: len(text), "longer")
"""Prefers the longer completion."""


class CrashError(Exception):
    """Stands for a kill: nothing after it is run."""


def crash_at(kind: str, step: int) -> Callable[[Event], None]:
    """A sink that ends the run where an event is told."""

    def emit(event: Event) -> None:
        if (event.kind, event.step) == (kind, step):
            raise CrashError

    return emit


def settings(model: Path, output: Path, **changes: Any) -> TrainConfig:
    """Settings of a short run in which everything takes part."""
    given: dict[str, Any] = {
        "model": str(model),
        "data": "random",
        "sae": "random",
        "output": str(output),
        "device": "cpu",
        "dtype": "float32",
        "alpha": 2.0,
        "beta": 0.5,
        "k": 8,
        "iters": 40,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "steps_per_report": 7,
        "steps_per_eval": 10,
        "save_every": 5,
        "step0_pairs": 4,
        "tokens_per_batch": 512,
    }
    return TrainConfig(**(given | changes))


class WordTokenizer:
    """Every id is a word of its own, and 2 ends a text."""

    all_special_ids = (2,)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(f"w{i}" for i in ids)

    def __call__(self, text: str, **_: Any) -> Any:
        return SimpleNamespace(input_ids=[int(word[1:]) for word in text.split()])


def degrader_of(config: TrainConfig) -> Degrader | None:
    """What removes words of random tokens, where the loss has degrees."""
    return Degrader.of(config, cast("Any", WordTokenizer()))


def degraded(batch: Batch, step: int = 1) -> Batch:
    """A batch of random tokens with the variants of a step, of four levels."""
    return Degrader(cast("Any", WordTokenizer()), 4, True, 0).degraded(batch, step)


def run_tiny(config: TrainConfig, store: Path, **options: Any) -> Any:
    """A run on random pairs with config.backend; the reference lies in, or goes into, `store`."""
    tap = Features.of(random_sae(HIDDEN), Hook.parse("blocks.1.hook_resid_post"), UNTRAINED)
    pairs = random_pairs(23, seed=1)
    return train_on(config, pairs[:19], pairs[19:], tap, store, **options)


def train_on(
    config: TrainConfig,
    train_pairs: TokenisedPairs,
    valid: TokenisedPairs | None,
    tap: Features,
    store: Path,
    *,
    emit: Any = None,
    stop: Any = lambda: None,
    group: Group = ALONE,
    judge: Judge | None = None,
    perplexity: Callable[[Policy], float] | None = None,
) -> Any:
    """What `fpo train` does, less its words: the result and the policy."""
    checkpoint = find_checkpoint(config, print)
    model = ModelFolder.locate(config)
    kind = {"grad_checkpoint": config.grad_checkpoint, "zeroth_order": config.zeroth_order}
    kind["degree_levels"] = config.degree_levels if config.degree_weight else 0
    kind |= {"shard": group, "cpu_offload": config.cpu_offload} if config.shard else {}
    policy = open_policy(config.backend, model.path, config, config, tap, **kind)
    hold_reference(policy, config, silent)
    if ReferenceStore.exists(store):
        opened = ReferenceStore.open(store)
    else:
        key = store_key(model.fingerprint(), None, tap)
        splits = [train_pairs] if valid is None else [train_pairs, valid]
        opened = extend_store(store, key, policy, splits, config, silent, group)
    parts = {"group": group, "degrader": degrader_of(config)}
    data = RunData(train_pairs, valid, opened, sum(tap.widths), **parts)
    folder = RunFolder(Path(config.output), model, config, group)
    if checkpoint is None:
        only_first(group, folder.begin)
    else:
        check_unchanged(checkpoint, config, data.fingerprints())
    log = silent if group.rank else JsonlLog(folder.log)
    sinks = [log, *([] if emit is None else [emit])]
    online = None if config.online is None else source(judge or LONGER)
    result = train(
        policy,
        data,
        config,
        folder,
        fan_out(*sinks),
        checkpoint=checkpoint,
        stop=stop,
        online=online,
        watch=DriftWatch(config, perplexity),
    )
    return result, policy


def source(judge: Judge) -> OnlineSource:
    """Ids as text, for judges of the tiny model's samples."""
    text = lambda ids: " ".join(map(str, ids))  # noqa: E731
    return OnlineSource(judge, text, text, stop=(2, 3, 4))


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The log less what a clock or the memory says."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a run that holds weights, moments or a score."""
    names = {"adapter_model.safetensors", "adapters.safetensors", "model.safetensors"}
    names |= {"trained.safetensors", "optimiser.safetensors", "fpo_best.json"}
    found = (path for path in folder.rglob("*") if path.name in names)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}

"""One of several processes (`forked`) that share a model.

Its argument is a JSON list of jobs, one after the other, for a launch takes longer than a job: runs
as of `process_worker`, which leave the bytes of their weights beside the result; a folder of models
to `compare`, that are scored, sampled from and written to files; a run to copy as if `stopped`.
"""

import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fpo.backends import join_group
from fpo_core.backend.policy import Sampling
from fpo_core.backend.process_group import ALONE, Group, only_first
from fpo_core.backend.sharded_files import gathered
from fpo_core.config import (
    AdapterConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimiserConfig,
    StepConfig,
)
from fpo_core.errors import FpoError
from fpo_core.loss.dense import ReferenceBatch
from fpo_torch.policy import TorchPolicy
from tests.backends.process_worker import run
from tests.helpers import random_batch

COMPARED = {"llama": "full", "qwen2": "full", "gemma2": "lora", "gpt2": "lora"}
"""Families that are compared, and what is trained of each."""
PLAIN = {"llama"}
"""Those that take the plain path."""
OBJECTIVES = {"full": "dpo", "lora": "tdpo2"}


class Gathered:
    """Counts the bytes of weights that are whole here, beside the rows, whenever FSDP gathers."""

    def __init__(self) -> None:
        from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

        self.most, self.groups = 0, set()
        wait = FSDPParamGroup.wait_for_unshard

        def counted(group: Any) -> None:
            wait(group)
            self.groups.add(group)
            self.most = max(self.most, sum(map(_whole_bytes, self.groups)))

        FSDPParamGroup.wait_for_unshard = counted


def _whole_bytes(group: Any) -> int:
    outputs = [x for p in group.fsdp_params for x in getattr(p, "all_gather_outputs", ())]
    return sum(x.untyped_storage().size() for x in outputs)


def bytes_of(policy: Any, gathered: Gathered) -> dict[str, int]:
    """Bytes of a sharded policy's weights and moments, here and in all, and of a block."""
    rows, whole = {}, {}
    for name, weight in policy.base.named_parameters():
        rows[name], whole[name] = weight.to_local().nbytes, weight.nbytes
    moments = sum(shard.nbytes for name, shard in policy.optimizer_state().items() if "." in name)
    shapes = policy._trainable.shapes().values()
    block = [size for name, size in whole.items() if ".layers.0." in name]
    return {
        "here": sum(rows.values()) + moments,
        "all": sum(whole.values()) + 2 * sum(4 * int(np.prod(shape)) for shape in shapes),
        "gathered": gathered.most,
        "block": sum(block),
    }


def compare(models: Path, group: Group | None) -> None:
    """What a policy says of each model, whole or split, written by the first process."""
    for family, kind in COMPARED.items():
        config = ModelConfig(model=str(models / family), device="cpu", dtype="float32")
        adapter = AdapterConfig(fine_tune_type=kind)
        step = StepConfig(plain=family in PLAIN)
        policy = TorchPolicy(models / family, config, adapter, None, shard=group, step=step)
        assert policy.info.fallback is None, policy.info.fallback
        if group is not None and policy._packed is not None:  # in several parts
            policy._sharding.vocabulary.chunk = policy._packed._head.chunk = 7
        state, ranks = ("whole", [0, 1]) if group is None else ("split", [group.rank])
        at_start = {rank: said(policy, rank) for rank in ranks}
        if kind == "lora":
            policy.set_reference(policy.trained())
            draw = np.random.default_rng(0).normal
            shapes = policy._trainable.shapes()
            policy.load_trained({name: draw(0, 0.2, shapes[name]) for name in sorted(shapes)})
        gradient = gradient_of(policy, ranks, OBJECTIVES[kind], group or ALONE)
        for rank in ranks:
            scores = policy.score(random_batch(3 - rank), kl=kind == "lora", entropy=True)
            moved = {"moved": scores.logps, "kl": scores.kl, "entropy": scores.entropy}
            found = at_start[rank] | gradient | {k: v for k, v in moved.items() if v is not None}
            save_file(found, models / f"{family}-{state}-{rank}.safetensors")


def said(policy: TorchPolicy, rank: int) -> dict[str, np.ndarray]:
    """Scores, samples and logits of a process's batch."""
    batch = random_batch(3 - rank)
    prompts = [np.array([3, 5, 7]), np.array([4, 9])]
    return {
        "logps": policy.score(batch).logps,
        "tokens": policy.token_scores(batch).logps,
        "logits": policy.logits(np.arange(8 + rank)[None]),
        "lens": policy.unembed(np.eye(policy.info.hidden_size, dtype=np.float32)[:4]),
        "samples": np.concatenate(policy.generate(prompts, Sampling(max_tokens=5, seed=1))),
    }


def gradient_of(
    policy: TorchPolicy, ranks: list[int], objective: str, group: Group
) -> dict[str, np.ndarray]:
    """Adam's first moment after a step of no length on these processes' batches."""
    policy.prepare_training(OptimiserConfig(), group)
    for rank in ranks:
        batch = random_batch(3 - rank)
        reference = ReferenceBatch(np.linspace(-9, -5, 2 * batch.pairs, dtype=np.float32))
        policy.accumulate(batch, reference, ObjectiveConfig(objective=objective), 0.2)
    policy.apply_gradients(0.0, 1e9)
    state = gathered(group, policy.optimizer_state())
    return {name: moment for name, moment in state.items() if name.endswith(".m")}


def copy_stopped(run: Path, to: Path) -> None:
    """Copy a run of 10 steps as it was after step 5."""
    later = {"step-00000010", "best", "model.safetensors"}
    shutil.copytree(run, to, ignore=lambda _, names: {*names} & later)


def main() -> None:
    """Take part in all jobs."""
    group, gathered = join_group("torch"), Gathered()
    for job in json.loads(sys.argv[1]):
        if "compare" in job:
            compare(Path(job["compare"]), group)
            continue
        if "stopped" in job:
            only_first(
                group, functools.partial(copy_stopped, Path(job["stopped"]), Path(job["as"]))
            )
            continue
        gathered.most = 0
        try:
            _, policy = run(job, group)
        except FpoError as error:
            sys.exit(f"process {group.rank}: {error}")
        found = json.dumps(bytes_of(policy, gathered))
        (Path(job["output"]) / f"bytes-{group.rank}.json").write_text(found)


if __name__ == "__main__":
    main()

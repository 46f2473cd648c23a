"""A batch whose pairs share one prompt against one in which each has its own, of the same lengths.

`--before` names a checkout of an earlier version, whose step on separate prompts is the measure; by
default this version's is. CPU times of interleaved steps, as in `bench_step --slices`.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.bench_step import (
    Step,
    build_policy,
    command,
    compare_all,
    model_folder,
    options_of,
    parser,
    policy_step,
    result_name,
    setting_of,
)
from benchmarks.interleave import serve, slice_cores
from benchmarks.record import write_result
from benchmarks.shapes import MODELS, batch_of
from fpo_core.data.batches import Batch

VARIANTS: dict[str, dict[str, Any]] = {
    "separate prompts": {},
    "one prompt": {"one_prompt": True},
}
SCORING = {
    f"scoring, {name}": options | {"scoring": True, "alpha": 0.5}
    for name, options in VARIANTS.items()
}


def one_prompt(batch: Batch) -> Batch:
    """The batch with its first prompt for all pairs; their prompts have one length."""
    tokens, prompt = batch.tokens.copy(), int(batch.prompt_lengths[0])
    tokens[:, :prompt] = tokens[0, :prompt]
    return dataclasses.replace(batch, tokens=tokens)


def work(options: dict[str, Any]) -> None:
    """Be a worker: take optimizer steps on one batch, or score it as the reference pass does."""
    batch = batch_of(options["pairs"], MODELS[options["model"]][1]["vocab_size"])
    batch = one_prompt(batch) if options.get("one_prompt") else batch
    if options.get("scoring"):
        serve(_scoring(options, batch))
    else:
        serve(*policy_step(options, batch))


def _scoring(options: dict[str, Any], batch: Batch) -> Step:
    policy = build_policy(options)
    return lambda: policy.score(batch)


def commands(arguments: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """The command line of each worker."""
    worker = [sys.executable, "-m", "benchmarks.bench_shared_prompts", "--worker"]
    variants = SCORING if arguments.scoring else VARIANTS
    made = {
        name: [*worker, json.dumps(options_of(arguments, folder, **options))]
        for name, options in variants.items()
    }
    if arguments.before and not arguments.scoring:
        place = Path(arguments.before).resolve()
        paths = os.pathsep.join(str(place / part) for part in ("", "convert", "cli"))
        earlier = ["env", "-C", str(place), f"PYTHONPATH={paths}"]
        made["before"] = earlier + command(options_of(arguments, folder))
    return made


def main() -> None:
    arguments = parser()
    arguments.add_argument("--before", help="checkout of the version to compare with")
    arguments.add_argument("--scoring", action="store_true", help="the reference pass, not steps")
    arguments = arguments.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    with model_folder(arguments) as folder:
        programs = commands(arguments, folder)
        base = "before" if "before" in programs else next(iter(programs))
        rows = compare_all(slice_cores(programs, arguments.steps, warm_up=1, cores=1), base)
    setting = setting_of(arguments) | {"before": bool(arguments.before)}
    name = result_name("shared-prompts", arguments, *["scoring"] * arguments.scoring)
    write_result(name, {"setting": setting, "rows": rows})


if __name__ == "__main__":
    main()

"""Two steps under each of many settings, by one policy: alone, or as one of several processes.

As `torchrun … -m tests.backends.every_loss`, or under `tests.rings`, its argument is a JSON object:
the backend, folders of model and store, settings by name, and the file that the first one writes.
"""

import json
import sys
from pathlib import Path
from typing import Any

from fpo.backends import join_group
from fpo_core.backend.process_group import ALONE, Group, only_first
from fpo_core.events import silent
from fpo_core.models.folder import ModelFolder
from fpo_core.reference.build import extend_store, store_key
from fpo_core.sae.hook import Hook
from fpo_core.sae.taps import Features
from fpo_core.train.optimizer_step import Stepper
from fpo_core.train.paired_data import RunData
from fpo_core.train.schedule import RowPlan
from tests.backends.runs import degrader_of, settings
from tests.backends.support import HIDDEN, UNTRAINED, open_policy, shaken
from tests.fast_blas import load_fast_blas
from tests.helpers import random_pairs, random_sae

SHARED = {"batch_size": 2, "grad_accumulation_steps": 2, "iters": 2, "warmup": 0.0}
MEASURED = ("loss", "grad_norm", "logps/rejected")


def steps(
    backend: str, model: Path, store: Path, cases: dict[str, dict[str, Any]], group: Group = ALONE
) -> dict[str, list[list[float]]]:
    """Loss, norm of the gradient and log π of rejected completions in each step of each case."""
    tap = Features.of(random_sae(HIDDEN), Hook.parse("blocks.1.hook_resid_post"), UNTRAINED)
    config = settings(model, model, backend=backend, **SHARED)
    policy = open_policy(backend, model, config, config, tap, degree_levels=config.degree_levels)
    start, pairs = policy.trained(), random_pairs(10, seed=1)
    key = store_key(ModelFolder.locate(config).fingerprint(), None, tap)
    opened = extend_store(store, key, policy, [pairs], config, silent, group)
    policy.set_reference(start)
    taken: dict[str, list[list[float]]] = {}
    for name, changes in cases.items():
        config = settings(model, model, backend=backend, **(SHARED | changes))
        parts = {"group": group, "degrader": degrader_of(config)}
        data = RunData(pairs, None, opened, sum(tap.widths), **parts)
        stepper = Stepper(policy, data, config, RowPlan.of(pairs, config))
        # Away from u = 0, where rounding chooses the side of a loss with a step.
        policy.load_trained(shaken(start, 0.02))
        policy.prepare_training(config, group)
        both = [stepper.take(step).metrics for step in (1, 2)]
        taken[name] = [[metrics[key] for key in MEASURED] for metrics in both]
    return taken


def main() -> None:
    """Take part in the steps of a group."""
    given = json.loads(sys.argv[1])
    load_fast_blas()
    backend, out = given["backend"], Path(given["out"])
    group = join_group(backend)
    taken = steps(backend, Path(given["model"]), Path(given["store"]), given["cases"], group)
    only_first(group, lambda: out.write_text(json.dumps(taken)))


if __name__ == "__main__":
    main()

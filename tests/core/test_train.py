"""The training loop, driven by a policy that only pretends to learn."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpo_core.errors import StoreError, TrainingError
from fpo_core.events import silent
from fpo_core.reference.build import extend_store
from fpo_core.reference.key import StoreKey
from fpo_core.train.schedule import RowPlan, learning_rate, warmup_steps
from tests.core.pretend import ROWS, PretendPolicy, config, run
from tests.helpers import pairs_of_prompts, random_pairs


def test_a_run_learns_saves_and_reports(tmp_path: Path) -> None:
    result, events, _ = run(tmp_path, PretendPolicy(), steps_per_eval=1)
    assert result.state.first["loss"] == pytest.approx(math.log(2))
    # After 6 steps the chosen side is 0.6 nats a token up: u = β · 0.6.
    assert result.state.evals[-1][1]["eval_loss"] == pytest.approx(
        -math.log(1 / (1 + math.exp(-1.2)))
    )
    assert result.state.best_step == 6
    for name in ("adapter_model.safetensors", "best/adapters.safetensors"):
        assert (tmp_path / "run" / name).is_file()
    assert (tmp_path / "run/checkpoints/step-00000006/state.json").is_file()
    assert [event.kind for event in events].count("eval") == 7


def test_accumulation_splits_the_same_windows(tmp_path: Path) -> None:
    pairs = random_pairs(ROWS)
    large = RowPlan.of(pairs, config(tmp_path, batch_size=4))
    small = RowPlan.of(pairs, config(tmp_path, batch_size=2, grad_accumulation_steps=2))
    for step in range(1, 7):
        parts = small.batches(step)
        assert [len(part) for part in parts] == [2, 2]
        assert np.concatenate(parts).tolist() == np.concatenate(large.batches(step)).tolist()


def test_pairs_of_a_prompt_share_a_batch_where_asked(tmp_path: Path) -> None:
    pairs = pairs_of_prompts(3, 4)
    prompts = pairs.prompts()
    plan = RowPlan.of(pairs, config(tmp_path, batch_size=2, group_prompts=True))
    assert all(len(set(prompts[rows])) == 1 for step in range(1, 7) for rows in plan.batches(step))


def test_pairs_of_a_prompt_share_a_batch_of_the_reference_pass(tmp_path: Path) -> None:
    pairs = pairs_of_prompts(3, 4)
    policy: Any = PretendPolicy()
    seen: list[Any] = []
    policy.score = lambda batch: seen.append(batch) or PretendPolicy().score(batch)
    settings = config(tmp_path, tokens_per_batch=8 * 32)
    extend_store(tmp_path / "store", StoreKey("m", None), policy, [pairs], settings, silent)
    prompts = pairs.prompts()
    assert [len(set(prompts[batch.rows])) for batch in seen] == [1, 1, 1]


def test_weights_of_a_window_sum_to_one_per_pair(tmp_path: Path) -> None:
    policy = PretendPolicy()
    run(tmp_path, policy, grad_accumulation_steps=2, iters=1)
    assert policy.weights == [1 / 4, 1 / 4]


def test_a_foreign_store_is_refused_before_step_1_with_its_rows(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"12 of 12 sampled pairs \(data rows 1, 2, 3"):
        run(tmp_path, PretendPolicy(shift=0.5))


def test_a_nonfinite_step_is_skipped_and_counted(tmp_path: Path) -> None:
    policy = PretendPolicy(norms=(1.0, math.nan, 1.0))
    result, events, _ = run(tmp_path, policy)
    assert result.state.skipped == 1
    assert len(policy.rates) == 5
    assert [event.step for event in events if event.kind == "skipped"] == [2]


def test_repeated_nonfinite_steps_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="3 steps in a row"):
        run(tmp_path, PretendPolicy(norms=(math.inf,) * 3), nonfinite_limit=3)


def test_schedules(tmp_path: Path) -> None:
    rates = {
        name: [
            learning_rate(s, 10, config(tmp_path, schedule=name, warmup=2)) for s in (1, 2, 3, 7)
        ]
        for name in ("constant", "cosine", "linear")
    }
    # Two steps of warm-up, then 8 steps: step 3 is the peak, step 7 half way.
    assert rates["constant"] == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert rates["cosine"] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert rates["linear"] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert warmup_steps(10, config(tmp_path, warmup=0.25)) == 2

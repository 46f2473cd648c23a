"""Workflows with a soft prompt or a prefix in place of LoRA."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import fpo
from fpo_core.errors import ConfigError
from tests.api.conftest import Settings


@pytest.fixture(scope="module", params=["prompt", "prefix"])
def tuned(
    request: pytest.FixtureRequest, cache: Path, small: Settings, steps: Settings
) -> fpo.TrainingRun:
    """A run of two steps."""
    settings = {**small, **{k: v for k, v in steps.items() if k != "rank"}}
    return fpo.train(
        **settings,
        fine_tune_type=request.param,
        virtual_tokens=3,
        learning_rate=0.5,
        save_every=1,
        save_total_limit=2,
        objective="fpo",
        output=cache / request.param,
    )


def test_the_start_is_measured_without_them(tuned: fpo.TrainingRun, run: fpo.TrainingRun) -> None:
    """The reference is the base: what a LoRA run, which starts there, measures before step 1."""
    assert tuned.before is not None
    assert run.before is not None
    for name, value in run.before.evaluation.metrics.items():
        if name.startswith(("logps/", "fpo/d_")):
            np.testing.assert_allclose(tuned.before.evaluation.metrics[name], value, atol=1e-4)
    assert tuned.metrics["fpo/kl_chosen"] > 0


def test_evaluate_generate_chat(tuned: fpo.TrainingRun, small: Settings) -> None:
    measured = fpo.evaluate(**small, adapter=tuned.output, val_pairs=2)
    assert measured.before is not None
    for name in ("logps/chosen", "logps/rejected"):
        ours, again = tuned.metrics[name], measured.metrics[name]
        np.testing.assert_allclose(again, ours, rtol=1e-4)
    model = {"model": small["model"], "backend": "torch", "max_tokens": 4, "temperature": 0.0}
    answer = fpo.generate(**model, adapter=tuned.output, prompt="Hello")
    conversation = fpo.chat(**model, adapter=tuned.output)
    assert conversation.reply("Hello", lambda _: None).text == answer.texts[0]
    bare = fpo.generate(**model, prompt="Hello").texts
    assert conversation.compare(lambda _: None)[1].text == bare[0]


def test_a_run_goes_on(tuned: fpo.TrainingRun, cache: Path, small: Settings) -> None:
    """From its first checkpoint with the same result, and from its adapter with the same base."""
    kind = "prompt" if tuned.output.name == "prompt" else "prefix"
    more = fpo.train(
        **small,
        adapter=tuned.output,
        iters=1,
        val_pairs=2,
        report=False,
        output=cache / f"{kind} goes on",
    )
    assert tuned.before is not None
    assert more.before is not None
    before, again = (run.before.evaluation.metrics for run in (tuned, more))
    np.testing.assert_allclose(again["logps/chosen"], before["logps/chosen"], rtol=1e-6)


@pytest.mark.parametrize("command", ["fuse", "serve"])
def test_what_no_merge_or_server_can_hold(
    tuned: fpo.TrainingRun, small: Settings, tmp_path: Path, command: str
) -> None:
    more = {"out": tmp_path / "out"} if command == "fuse" else {}
    with pytest.raises(ConfigError, match="virtual tokens, which"):
        getattr(fpo, command)(model=small["model"], adapter=tuned.output, backend="torch", **more)


def test_preflight_counts_them(tuned: fpo.TrainingRun, small: Settings, tmp_path: Path) -> None:
    del tuned
    report = fpo.preflight(**small, fine_tune_type="prefix", iters=1, output=tmp_path / "none")
    assert dataclasses.is_dataclass(report)
    assert not (tmp_path / "none").exists()

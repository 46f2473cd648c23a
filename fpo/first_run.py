"""A first run, as `fpo quickstart` does it: `fpo train` on an example, shown before and after."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import select_backend
from fpo.example import Example
from fpo.training import Checked, Outcome, check_folder, check_run, run
from fpo_cli.console.ui import Ui
from fpo_core.backend.policy import Sampling
from fpo_core.config import QuickstartConfig, TrainConfig
from fpo_core.evaluation.model_card import PICTURE
from fpo_core.io.atomic import remove_folder
from fpo_core.train.paired_data import spread
from fpo_core.train.run_folder import CONFIG_FILE, checkpoints_in

SHOWN = 3
"""Completions printed."""
_ROWS = (
    ("held-out raw accuracy", "{:.3f}", lambda m: m.evaluation.raw_accuracy.value),
    ("reward accuracy", "{:.3f}", lambda m: m.evaluation.reward_accuracy.value),
    ("oracle's score of samples", "{:.3f}", lambda m: m.oracle),
    ("sequential KL, chosen", "{:.2f}", lambda m: m.evaluation.metrics.get("fpo/kl_chosen")),
    ("sequential KL, rejected", "{:.2f}", lambda m: m.evaluation.metrics.get("fpo/kl_rejected")),
    ("D, chosen", "{:.4f}", lambda m: m.evaluation.metrics.get("fpo/d_chosen")),
    ("D, rejected", "{:.4f}", lambda m: m.evaluation.metrics.get("fpo/d_rejected")),
    ("entropy of samples, nats", "{:.3f}", lambda m: m.entropy),
    ("perplexity, unrelated text", "{:.2f}", lambda m: m.perplexity),
)


def first_run(config: QuickstartConfig, ui: Ui, example: Example) -> dict[str, Any]:
    """Convert, build the store, train, measure, draw and show; the mapping that --json prints."""
    started = time.perf_counter()
    select_backend(config)
    check_folder(config.output)
    output = Path(config.output)
    settings = train_settings(config, example)
    _make_room(output, settings)
    example.convert(output)
    checked = check_run(settings, ui)
    outcome = run(
        checked,
        ui,
        samples=config.samples,
        sampling=Sampling(example.tokens, 1.0, 1.0, config.seed, checked.session.stop),
        sample_batch=config.samples,
        judge=example.judge,
    )
    picture = output / PICTURE
    seconds = time.perf_counter() - started
    prompts = _prompts(checked, config.samples)
    result = outcome.to_mapping() | {
        "backend": checked.session.backend,
        "seconds": seconds,
        "calibration": calibrate(),
        "picture": str(picture),
        "sae": settings.sae,
        "prompts": prompts,
    }
    _show(ui, outcome, prompts, result)
    return result


def _make_room(output: Path, settings: TrainConfig) -> None:
    """An earlier run of the example gives way to this one; a run of the user's own does not."""
    checkpoints = checkpoints_in(output).folder
    try:
        before = json.loads((output / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if before.get("data") == settings.data and checkpoints.exists():
        remove_folder(checkpoints)


def train_settings(config: QuickstartConfig, example: Example) -> TrainConfig:
    """The example's settings on its files, with what the command was given on top."""
    given = {k: v for k, v in config.to_mapping().items() if k in TrainConfig.names()}
    settings = example.training(Path(config.output)) | given
    return TrainConfig.from_mapping(settings, str(example.settings))


def calibrate(size: int = 1024) -> float:
    """Seconds of one float32 matrix product, the best of five: how fast this machine is now."""
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        np.matmul(a, a)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _prompts(checked: Checked, samples: int) -> list[str]:
    """The prompts behind the samples, as text."""
    rows = checked.data.valid or checked.data.train
    decode = checked.session.tokenizer.decode
    places = spread(len(rows), samples)
    return [decode(rows[int(i)].prompt, skip_special_tokens=True) for i in places]


def _show(ui: Ui, outcome: Outcome, prompts: list[str], result: dict[str, Any]) -> None:
    from rich.table import Table

    before = outcome.before
    assert before is not None, "a first run measures its start"
    table = Table("", "before", "after", box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, form, read in _ROWS:
        values = [read(m) for m in (before, outcome.after)]
        if values != [None, None]:
            table.add_row(label, *(_cell(form, value) for value in values))
    ui.say()
    ui.say(table)
    for i, prompt in enumerate(prompts[:SHOWN]):
        ui.say()
        ui.say(f"prompt  {_one_line(prompt)}", "bold")
        ui.say(f"before  {_one_line(before.completions[i])}")
        ui.say(f"after   {_one_line(outcome.after.completions[i])}", "green")
    ui.say()
    for line in outcome.verdict:
        ui.say(line)
    ui.say()
    ui.say(
        f"{result['seconds']:.0f} s on {result['backend']} (a 1024² matrix product takes "
        f"{result['calibration'] * 1000:.0f} ms here); curves in {result['picture']}"
    )


def _cell(form: str, value: float | None) -> str:
    return "–" if value is None else form.format(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())

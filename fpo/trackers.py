"""Experiment trackers as sinks of events: TensorBoard and Weights & Biases, by their libraries."""

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fpo_core.config import TrainConfig
from fpo_core.errors import ConfigError, shorten
from fpo_core.events import Event, Sink

LIBRARIES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
"""Each tracker and the package that writes for it."""

Log = Callable[[dict[str, float], int], None]
"""Takes metrics by name and the step that they belong to."""


def check_trackers(config: TrainConfig) -> None:
    """Raise ConfigError for a tracker that is unknown, or whose library is not installed."""
    for name in config.report_to or ():
        if name not in LIBRARIES:
            raise ConfigError(f"report_to is {name!r}, expected some of {', '.join(LIBRARIES)}")
        if importlib.util.find_spec(LIBRARIES[name]) is None:
            raise ConfigError(
                f"report_to {name} needs {LIBRARIES[name]}, not installed here: "
                "pip install 'fpo-mlx[trackers]'"
            )


@contextlib.contextmanager
def open_trackers(config: TrainConfig) -> Iterator[list[Sink]]:
    """The trackers of a run, whose files go under its output folder; closed at the end."""
    openers = {"tensorboard": _tensorboard, "wandb": _wandb}
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(openers[name](config)) for name in config.report_to or ()]
        yield [_sink(log) for log in logs]


def _sink(log: Log) -> Sink:
    def emit(event: Event) -> None:
        if event.kind in ("train", "eval", "constraint"):
            log(_prefixed(event), event.step)

    return emit


def _prefixed(event: Event) -> dict[str, float]:
    """`train/loss` and `eval/loss`, as other trainers report them."""
    return {
        f"{event.kind}/{name.removeprefix('eval_')}": float(value)
        for name, value in event.values.items()
        if isinstance(value, int | float)
    }


@contextlib.contextmanager
def _tensorboard(config: TrainConfig) -> Iterator[Log]:
    writer = importlib.import_module("tensorboardX").SummaryWriter(
        str(Path(config.output) / "tensorboard")
    )

    def log(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()


@contextlib.contextmanager
def _wandb(config: TrainConfig) -> Iterator[Log]:
    """Project, mode and key come from the environment, as W&B's own documentation says."""
    wandb: Any = importlib.import_module("wandb")
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fpo-mlx"),
            name=Path(config.output).resolve().name,
            dir=config.output,
            config=config.to_mapping(),
        )
    except wandb.Error as error:
        raise ConfigError(
            f"report_to wandb cannot begin ({shorten(error)}): log in, set WANDB_MODE=offline, or "
            "leave it out"
        ) from None
    try:
        yield lambda values, step: run.log(values, step=step)
    finally:
        run.finish()

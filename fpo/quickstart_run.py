"""A first run: `train` on an example, measured and sampled before and after."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpo.backends import select_backend
from fpo.example_inputs import Example, quickstart_world
from fpo.quickstart_settings import quickstart_defaults
from fpo.results import Result, Table
from fpo.run_checks import ValidatedRun, check_run, writing_output
from fpo.training import TrainingRun, train_validated
from fpo.workflow import Stop, workflow
from fpo_core.backend.policy import Sampling
from fpo_core.config import QuickstartConfig, TrainConfig
from fpo_core.config.presets import PRESET_SETTINGS
from fpo_core.errors import ConfigError
from fpo_core.evaluation.model_card import PICTURE
from fpo_core.events import Sink
from fpo_core.io.atomic import remove_folder
from fpo_core.io.regular import read_json_object
from fpo_core.train.paired_data import spread
from fpo_core.train.run_folder import CONFIG_FILE, checkpoints_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class QuickstartRun(Result):
    """A training run on an example, and the prompts behind its samples."""

    run: TrainingRun
    backend: str
    seconds: float
    """From the conversion of the autoencoder to the last measurement."""
    calibration: float
    """Seconds of one float32 product of 1024² matrices here, to compare machines by."""
    picture: Path
    sae: tuple[str, ...]
    """The converted autoencoder."""
    prompts: list[str]

    @property
    def metrics(self) -> dict[str, Any]:
        """Measurements of the result on held-out pairs, by name."""
        return self.run.metrics

    @property
    def samples(self) -> list[tuple[str, str, str]]:
        """Prompts with their completions before and after."""
        before = self.run.before
        assert before is not None, "a first run measures its start"
        sides = (self.prompts, before.completions, self.run.after.completions)
        return list(zip(*sides, strict=True))

    def plot(self) -> "Figure":
        """Loss, accuracies, D and rewards over the steps, as a matplotlib figure."""
        return self.run.plot()

    def table(self) -> Table:
        """Measurements before and after."""
        return self.run.table()

    def to_mapping(self) -> dict[str, Any]:
        """The run as JSON values."""
        return self.run.to_mapping() | {
            "backend": self.backend,
            "seconds": self.seconds,
            "calibration": self.calibration,
            "picture": str(self.picture),
            "sae": self.sae,
            "prompts": self.prompts,
        }

    def _repr_html_(self) -> str:
        head = ("prompt", "before", "after")
        return super()._repr_html_() + Table(head, self.samples[:SAMPLES_SHOWN]).html()


@workflow(QuickstartConfig, quickstart_defaults)
def quickstart(
    config: QuickstartConfig, sink: Sink, stop: Stop | None = None, example: Example | None = None
) -> QuickstartRun:
    """Align a tiny model that ships with the package, end to end, in about a minute.

    Converts the embedded world's autoencoder, builds the reference store, trains, and measures and
    samples the model before and after. Needs no network. `example` takes another model's place;
    its settings hold where the call sets nothing.
    """
    started = time.perf_counter()
    example = example or quickstart_world()
    select_backend(config)
    output = Path(config.output)
    settings = train_settings(config, example)
    with writing_output(config.output):
        # A second quickstart begins anew, where training would refuse to overwrite a run.
        _clear_earlier(output, settings)
        example.convert(output)
        checked = check_run(settings, sink)
        run = train_validated(
            checked,
            sink,
            stop,
            samples=config.samples,
            sampling=Sampling(
                example.tokens, example.temperature, 1.0, config.seed, checked.setup.stop
            ),
            sample_batch=config.samples,
            judge=example.judge,
        )
    return QuickstartRun(
        run=run,
        backend=checked.setup.backend,
        seconds=time.perf_counter() - started,
        calibration=calibrate(),
        picture=output / PICTURE,
        sae=settings.sae or (),
        prompts=_prompts(checked, config.samples),
    )


def _clear_earlier(output: Path, settings: TrainConfig) -> None:
    """Remove an earlier run of the example; checkpoints of the user's own data stay."""
    checkpoints = checkpoints_in(output).folder
    try:
        before = read_json_object(output / CONFIG_FILE, ConfigError)
    except ConfigError:
        return
    if before.get("data") == settings.data and checkpoints.is_dir():
        remove_folder(checkpoints)


def train_settings(config: QuickstartConfig, example: Example) -> TrainConfig:
    """The example's settings on its files, with those of the call on top."""
    over = {k: v for k, v in config.to_mapping().items() if k in TrainConfig.names()}
    settings, own = example.training(Path(config.output)), config.__dataclass_fields__
    for name in set(over) & PRESET_SETTINGS - set(settings):
        if over[name] == own[name].default:  # nobody set it: it is the preset's
            del over[name]
    settings |= over
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


def _prompts(checked: ValidatedRun, samples: int) -> list[str]:
    """The prompts behind the samples, as text."""
    rows = checked.data.valid or checked.data.train
    decode = checked.setup.tokenizer.decode
    places = spread(len(rows), samples)
    return [decode(rows[int(i)].prompt, skip_special_tokens=True) for i in places]

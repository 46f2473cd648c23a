"""Training autoencoders of a model on a user's own texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fpo.backends import backend_module, build_kernels, build_reader
from fpo.curves import draw_sae_curves, figure_of_sae, read_log
from fpo.model_setup import ModelSetup
from fpo.results import Result, Table
from fpo.run_checks import writing_output
from fpo.sae_fit import fit_rows, measure_fit
from fpo.workflow import Stop, workflow
from fpo_core import __version__
from fpo_core.backend.process_group import check_same_settings, only_first
from fpo_core.config import ModelConfig, SaeTrainConfig
from fpo_core.data.cache import fingerprint
from fpo_core.errors import ConfigError, SaeError
from fpo_core.events import Event, JsonlLog, Sink, fan_out, note, progress, silent
from fpo_core.models.lineage import model_names
from fpo_core.sae.compatibility import activation_width
from fpo_core.sae.explained_variance import Fit
from fpo_core.sae.hook import Hook
from fpo_core.sae.metadata import SaeMeta
from fpo_core.sae.sae import Sae, load_sae
from fpo_core.sae.taps import Features
from fpo_core.sae_training.folding import threshold_of
from fpo_core.sae_training.forecast import Forecast, forecast
from fpo_core.sae_training.kernels import Kernels
from fpo_core.sae_training.learner import Learner
from fpo_core.sae_training.loop import Loop, fold
from fpo_core.sae_training.recipe import Recipe, recipe_of
from fpo_core.sae_training.rows import Row, Rows, forward_batches, read_rows
from fpo_core.sae_training.run_files import SaeRunFiles
from fpo_core.sae_training.shuffle_buffer import ShuffleBuffer
from fpo_core.sae_training.stream import ActivationStream
from fpo_core.sae_training.verdict import duplicates, judge_training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_THRESHOLD_TOKENS, _MEASURED_TOKENS = 100_000, 50_000
"""Held-out tokens that the threshold is set on, and others that are measured, at most."""
_CHANGES_NOTHING = frozenset(
    (
        *("output", "model", "data", "text", "revision", "trust_remote_code", "cache", "columns"),
        *("max_rows", "resume", "dry_run", "save_every", "steps_per_report", "process_timeout"),
        *("backend", "device", "dtype", "d_sae", "k", "tokens", "learning_rate", "layer"),
    )
)
"""Settings that a resumed run may have otherwise, or that are compared by what they came to."""


@dataclass(frozen=True, kw_only=True)
class TrainedSae:
    """One autoencoder, measured on held-out texts."""

    file: Path
    hook: str
    threshold: float | None
    """None for topk."""
    fit: Fit
    duplicates: int
    """Features whose decoder row is nearly another's."""
    verdict: str
    reasons: list[str]


@dataclass(frozen=True, kw_only=True)
class SaeTraining(Result):
    """How a run went."""

    saes: list[TrainedSae]
    recipe: Recipe
    distinct_tokens: int
    log: Path
    curves: Path
    peak_memory: int
    """Most bytes in use while training, the buffer included."""

    @property
    def files(self) -> list[Path]:
        """The files, ready for the setting `sae`."""
        return [sae.file for sae in self.saes]

    def plot(self) -> "Figure":
        """Loss, active and dead features over the steps."""
        return figure_of_sae(self.log)

    def table(self) -> Table:
        """A measurement a row, an autoencoder a column, and the verdicts."""
        rows = fit_rows(sae.fit for sae in self.saes)
        rows.append(("duplicate features", *(f"{sae.duplicates}" for sae in self.saes)))
        below = [f"{sae.file}: {sae.verdict}: {'; '.join(sae.reasons)}" for sae in self.saes]
        return Table(("held out", *(sae.hook for sae in self.saes)), rows, below)

    def to_mapping(self) -> dict[str, Any]:
        """The run as JSON values."""
        values = super().to_mapping()
        recipe = values.pop("recipe")
        return values | recipe | {"steps": self.recipe.steps}


@dataclass(frozen=True, kw_only=True)
class SaeForecast(Result):
    """What a run would take."""

    hooks: list[str]
    recipe: Recipe
    forecast: Forecast

    def table(self) -> Table:
        """The forecast in sentences."""
        return Table(("", ""), [], self.forecast.lines())

    def to_mapping(self) -> dict[str, Any]:
        """The forecast as JSON values."""
        return {"hooks": self.hooks, **vars(self.recipe), **self.forecast.to_mapping()}


@workflow(SaeTrainConfig)
def train_sae(config: SaeTrainConfig, sink: Sink, stop: Stop | None = None) -> SaeTraining:
    """Train sparse autoencoders on a model's activations at your pairs and texts.

    The result is a file, or one per layer, that `train` takes as `sae`, with a threshold set on
    held-out texts, and measurements on other ones. `stop` is asked between two steps: a number in
    place of None saves a checkpoint and raises StoppedError, and `resume=True` goes on from there.
    Raises other FpoErrors for whatever is wrong with the settings, data or files.
    """
    if config.dry_run:
        raise ConfigError("dry_run is set, which trains nothing: call forecast_sae, or leave it")
    plan = _Plan(config)
    plan.check()
    with writing_output(str(plan.files.folder), plan.setup.group, config.process_timeout):
        return _train(plan, sink, stop or (lambda: None))


@workflow(SaeTrainConfig)
def forecast_sae(config: SaeTrainConfig, sink: Sink) -> SaeForecast:
    """Try a run on its largest forward batch and a few steps: its time, memory and disk."""
    plan = _Plan(config)
    plan.check()
    _announce(plan, sink)
    return SaeForecast(
        hooks=[str(hook) for hook in plan.hooks], recipe=plan.recipe, forecast=plan.forecast
    )


def default_layer(layers: int) -> int:
    """The block after four fifths of so many."""
    return layers * 4 // 5


@dataclass(frozen=True)
class _Plan:
    """A run's settings, and what follows from them before anything is trained."""

    config: SaeTrainConfig

    @cached_property
    def setup(self) -> ModelSetup:
        return ModelSetup(self.config.only(ModelConfig))

    @cached_property
    def hooks(self) -> tuple[Hook, ...]:
        layers = self.setup.model.layers
        numbers = self.config.layer or (str(default_layer(layers)),)
        for number in numbers:
            if int(number) >= layers:
                raise ConfigError(
                    f"layer is {number}, and the model has {layers} blocks, numbered from 0: "
                    "choose one of them"
                )
        return tuple(Hook(int(number), self.config.site) for number in numbers)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        widths = [activation_width(self.setup.model.config, hook)[0] for hook in self.hooks]
        known = tuple(width for width in widths if width is not None)
        if len(known) < len(widths):
            raise SaeError(
                "the model's config.json does not say how wide its activations are, expected "
                "hidden_size: use a model that says it"
            )
        return known

    @cached_property
    def rows(self) -> Rows:
        return read_rows(self.config, self.setup.tokenizer)

    @property
    def special(self) -> tuple[int, ...]:
        """Ids that are not trained on: whatever the tokenizer calls special."""
        return tuple({i for role in self.setup.special.values() for i in role})

    @cached_property
    def stream(self) -> ActivationStream:
        return self._stream(self.rows.train, "train")

    def held_out(self) -> ActivationStream:
        """Activations to set the threshold on."""
        return self._stream(_half(self.rows.held_out, 0), "threshold")

    def _stream(self, rows: Sequence[Row], part: str) -> ActivationStream:
        setup, cache = self.setup, None
        if self.config.cache is not None:
            key = self.origin | {"hooks": [str(hook) for hook in self.hooks], "part": part}
            cache = Path(self.config.cache).expanduser() / f"activations-{part}-{fingerprint(key)}"
        return ActivationStream(
            forward_batches(rows, self.special, self.config.tokens_per_batch),
            lambda: build_reader(setup.backend, setup.model.path, setup.config, self.hooks),
            self.widths,
            setup.group,
            cache,
        )

    @cached_property
    def recipe(self) -> Recipe:
        return recipe_of(self.config, max(self.widths), sum(self.stream.counts))

    @cached_property
    def kernels(self) -> Kernels:
        return build_kernels(self.setup.backend, self.setup.config)

    @property
    def files(self) -> SaeRunFiles:
        return SaeRunFiles(Path(self.config.output).expanduser(), self.hooks)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token in the buffer, which holds activations in 16 bits."""
        return 2 * sum(self.widths)

    @property
    def buffer_tokens(self) -> int:
        """Tokens that the buffer may hold."""
        return self.config.memory * 2**20 // self.token_bytes

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What activations and order depend on."""
        return {
            "model": self.setup.model.fingerprint(),
            "rows": self.rows.digest(),
            "backend": self.setup.backend,
            "dtype": self.config.dtype,
            "tokens_per_batch": self.config.tokens_per_batch,
        }

    @cached_property
    def run_origin(self) -> dict[str, Any]:
        """What a run that goes on must have in common with the one that was stopped."""
        settings = {
            name: value
            for name, value in self.config.to_mapping().items()
            if name not in _CHANGES_NOTHING
        }
        recipe = vars(self.recipe) | {"prefixes": list(self.recipe.prefixes)}
        hooks = ",".join(map(str, self.hooks))
        processes = self.setup.group.size
        settings |= recipe | {"hooks": hooks, "processes": processes, "fpo": __version__}
        return self.origin | {"settings": settings}

    @cached_property
    def forecast(self) -> Forecast:
        devices = backend_module(self.setup.backend, "device")
        return forecast(
            self.stream,
            self.recipe,
            self.kernels,
            devices,  # pyright: ignore[reportArgumentType]
            self.buffer_tokens,
            cached=self.config.cache is not None,
        )

    def metas(self) -> list[SaeMeta]:
        """The metadata of the files."""
        recipe, config, model = self.recipe, self.config, self.setup.model
        names = [name for name in model_names(model) if not Path(name).expanduser().exists()]
        quantised = model.quantisation
        source: dict[str, Any] = {
            "trained_with": f"fpo-mlx {__version__}, {self.setup.backend}",
            "model_sha256": self.origin["model"],
            "rows_sha256": self.origin["rows"],
            "distinct_tokens": sum(self.stream.counts),
            **{name: value for name, value in vars(recipe).items() if name != "prefixes"},
        }
        source |= {"prefixes": list(recipe.prefixes)} if len(recipe.prefixes) > 1 else {}
        source |= {} if quantised is None else {"quantised_model": quantised}
        topk = recipe.architecture == "topk"
        return [
            SaeMeta(
                architecture="topk" if topk else "jumprelu",
                d_in=width,
                d_sae=recipe.d_sae,
                k=recipe.k if topk else None,
                hook=hook,
                model_name=names[0] if names else Path(config.model).name,
                untrained_tokens=("special",),
                folded=("scale", "centre"),
                source=source,
            )
            for hook, width in zip(self.hooks, self.widths, strict=True)
        ]

    def check(self) -> None:
        """Refuse what needs no weights to be refused."""
        config, setup = self.config, self.setup
        check_same_settings(setup.group, config.to_mapping())
        inputs = {"model": config.model, "data": config.data, "text": config.text}
        self.files.check(inputs, resume=config.resume)
        if len(set(self.widths)) > 1:
            raise ConfigError("the layers have activations of several widths: train each by itself")
        setup.special  # noqa: B018  a tokenizer that cannot be read is refused here
        self._check_memory()

    def _check_memory(self) -> None:
        """Refuse a buffer out of which batches would come shorter than stated."""
        held, batch = self.buffer_tokens, self.recipe.batch_tokens
        if held >= min(2 * batch, sum(self.stream.counts)):
            return
        needed = math.ceil(2 * batch * self.token_bytes / 2**20)
        raise ConfigError(
            f"memory is {self.config.memory} MiB, which holds {held:,} tokens, "
            f"expected two batches of {batch:,} ({needed} MiB): raise memory, or lower batch_tokens"
        )


def _announce(plan: _Plan, sink: Sink) -> None:
    setup, recipe = plan.setup, plan.recipe
    note(sink, f"{setup.backend}, {setup.model.name}, {', '.join(map(str, plan.hooks))}")
    if setup.model.quantisation is not None:
        note(sink, "the model is quantised: the autoencoder will fit it as it is, not the original")
    note(sink, f"{recipe.d_sae} features of width {recipe.d_in}, {recipe.k} active per token")
    for line in plan.forecast.lines():
        note(sink, line)


def _train(plan: _Plan, sink: Sink, stop: Stop) -> SaeTraining:
    config, group, files = plan.config, plan.setup.group, plan.files
    if not config.resume:
        _announce(plan, sink)
        only_first(group, files.begin)
    devices = backend_module(plan.setup.backend, "device")
    devices.reset_peak_memory(plan.kernels.device)
    buffer = _buffer(plan, sink)
    saved = files.open(plan.run_origin) if config.resume else None
    if saved is None:
        buffer.fill()
    else:
        note(sink, f"going on after step {saved.step}")
        saved.restore_buffer(buffer)
    learners = [Learner(plan.kernels, plan.recipe, scaling, group) for scaling in buffer.scalings]
    for number, learner in enumerate(learners if saved is not None else ()):
        assert saved is not None
        saved.restore_learner(number, learner)
    emit = silent if group.rank else fan_out(JsonlLog(files.log), sink)
    loop = Loop(
        files=files,
        metas=plan.metas(),
        origin=plan.run_origin,
        dtype=config.save_dtype,
        steps_per_report=config.steps_per_report,
        save_every=config.save_every,
        group=group,
        emit=emit,
        stop=stop,
    )
    sink(Event("begin", 0, {"processes": group.size}))
    try:
        loop.run(learners, buffer)
    finally:
        sink(Event("end", 0))
    peak = devices.peak_memory(plan.kernels.device)
    if plan.setup.backend == "mlx" or str(plan.kernels.device).startswith("cuda"):
        peak += sum(array.nbytes for array in buffer.arrays)
    del buffer
    folded = _with_thresholds(plan, learners, loop, sink)
    return _measured(plan, folded, peak, sink)


def _buffer(plan: _Plan, sink: Sink) -> ShuffleBuffer:
    stream = plan.stream
    return ShuffleBuffer(
        stream.counts,
        stream.read,
        stream.widths,
        capacity=plan.buffer_tokens,
        seed=plan.config.seed,
        at_once=stream.processes,
        on_block=lambda done, total: progress(sink, "activations: token", done, total),
    )


def _with_thresholds(
    plan: _Plan, learners: Sequence[Learner], loop: Loop, sink: Sink
) -> list[tuple[Sae, float | None]]:
    """Fold, set the thresholds on held-out activations, write the files."""
    pieces = [[] for _ in learners]
    if plan.recipe.architecture != "topk":
        pieces = _held_out_pieces(plan, learners, sink)
    results = []
    for number, learner in enumerate(learners):
        sae, threshold = fold(learner, loop.metas[number], 0.0), None
        if plan.recipe.architecture != "topk":
            threshold = threshold_of(plan.kernels, sae, plan.recipe.k, pieces[number])
            sae = fold(learner, loop.metas[number], threshold)
        path = loop.files.results[number]
        only_first(plan.setup.group, lambda path=path, sae=sae: loop.write(path, sae))
        results.append((sae, threshold))
    only_first(plan.setup.group, loop.files.end)
    return results


def _held_out_pieces(
    plan: _Plan, learners: Sequence[Learner], sink: Sink
) -> list[list[np.ndarray]]:
    """Held-out activations of each hook, outliers left out, in pieces."""
    stream, total = plan.held_out(), 0
    pieces: list[list[np.ndarray]] = [[] for _ in learners]
    order = np.random.default_rng(plan.config.seed).permutation(len(stream.counts)).tolist()
    for at in range(0, len(order), stream.processes):
        for block in stream.read(order[at : at + stream.processes]):
            for part, rows, learner in zip(pieces, block, learners, strict=True):
                norms = np.linalg.norm(rows.astype(np.float32), axis=1)
                part.append(rows[norms <= learner.scaling.limit])
            total += len(block[0])
        progress(sink, "threshold: token", total, min(_THRESHOLD_TOKENS, sum(stream.counts)))
        if total >= _THRESHOLD_TOKENS:
            break
    return pieces


def _measured(
    plan: _Plan, folded: Sequence[tuple[Sae, float | None]], peak: int, sink: Sink
) -> SaeTraining:
    """Measure the files as they are on disk, on held-out rows that set no threshold."""
    setup, files, trained = plan.setup, plan.files, []
    distinct = sum(plan.stream.counts)
    events = read_log(files.log)
    vars(plan).pop("stream")  # with the truncated model: the measurements need the whole one
    rows = _first_rows(_half(plan.rows.held_out, 1), _MEASURED_TOKENS)
    for hook, path, (_, threshold) in zip(plan.hooks, files.results, folded, strict=True):
        sae = load_sae(path)
        reader = build_reader(setup.backend, setup.model.path, setup.config, [hook], whole=True)
        fit = measure_fit(reader, Features.of(sae, hook, plan.special), rows, sink)
        judged = judge_training(fit, plan.recipe, distinct, events, str(hook))
        trained.append(
            TrainedSae(
                file=path,
                hook=str(hook),
                threshold=threshold,
                fit=fit,
                duplicates=duplicates(plan.kernels, np.asarray(sae.W_dec, np.float32)),
                verdict=judged.word,
                reasons=list(judged.reasons),
            )
        )
    curves = files.folder / "curves.png"
    only_first(setup.group, lambda: draw_sae_curves(files.log, curves, plan.config.output))
    return SaeTraining(
        saes=trained,
        recipe=plan.recipe,
        distinct_tokens=distinct,
        log=files.log,
        curves=curves,
        peak_memory=peak,
    )


def _half(rows: Sequence[Row], part: int) -> list[Row]:
    """Every other two rows, for the sides of a pair follow each other; all where there are two."""
    return [row for i, row in enumerate(rows) if i // 2 % 2 == part or len(rows) < 3]


def _first_rows(rows: Sequence[Row], tokens: int) -> list[Row]:
    chosen, total = [], 0
    for row in rows:
        if total >= tokens:
            break
        chosen.append(row)
        total += len(row)
    return chosen

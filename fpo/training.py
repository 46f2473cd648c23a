"""A whole run: checks, phase 1 where the reference is not stored yet, phase 2, measurements."""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpo.auto_sae import with_sae
from fpo.curves import draw_curves, figure_of_run, read_log
from fpo.judge_choice import JudgeLike, choose_judge
from fpo.launch import process_number
from fpo.measurements import Measurements, Measurer, findings, measurements_table
from fpo.model_setup import ModelSetup, splits_of
from fpo.preflight_report import PreflightReport, run_preflight
from fpo.prompt_text import bare_prompt
from fpo.provenance import command_of, versions_of
from fpo.publishing import check_account, push
from fpo.questionnaire import Questionnaire
from fpo.reporting.of_training import TrainingReport
from fpo.reporting.page_file import REPORT_FILE
from fpo.results import Result, Table
from fpo.run_checks import ValidatedRun, announce, check_run, writing_output
from fpo.samplers import training_sampler
from fpo.trackers import open_trackers
from fpo.workflow import Stop, workflow
from fpo_core.backend.policy import Policy
from fpo_core.backend.process_group import only_first
from fpo_core.backend.reference_weights import as_reference, reference_weights
from fpo_core.backend.sharded_files import takes_part
from fpo_core.config import TrainConfig
from fpo_core.errors import ConfigError
from fpo_core.evaluation.model_card import (
    CARD_FILE,
    PICTURE,
    RunFacts,
    shown,
    train_card,
    write_card,
)
from fpo_core.evaluation.verdict import verdict
from fpo_core.events import Event, JsonlLog, Sink, fan_out, note, silent
from fpo_core.judges.judge import Judge
from fpo_core.pairs.goals import pass_on
from fpo_core.train.degrees import Degrader
from fpo_core.train.drift_watch import TEXTS, DriftWatch
from fpo_core.train.kl_reference import hold_reference
from fpo_core.train.loop import TrainResult
from fpo_core.train.loop import train as train_loop
from fpo_core.train.online import OnlineSource
from fpo_core.train.paired_data import RunData, spread
from fpo_core.train.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class TrainingRun(Result):
    """How a run went: `output` holds the adapter or model, checkpoints, log, curves and card."""

    output: Path
    reference: Path
    """The store of the frozen model's pass."""
    log: Path
    """Events of the run as JSON lines."""
    loop: TrainResult
    before: Measurements | None
    """The same measurements before the first step; None where they were not taken."""
    after: Measurements
    verdict: list[str]
    """What the measurements say, in sentences."""
    report: Path | None = None
    """The page with everything to look at; None where none was asked for."""
    title: str = field(default="", repr=False)

    @property
    def metrics(self) -> dict[str, Any]:
        """Measurements of the result on held-out pairs, by name.

        Under `samples` are greedy answers before and after, of the shape of
        `fpo_core.evaluation.greedy_answers.compared`.
        """
        return self.after.with_samples(self.before)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event of the log, such as `{"kind": "train", "step": 10, "loss": …}`."""
        return read_log(self.log)

    def plot(self) -> "Figure":
        """Loss, accuracies, D and rewards over the steps, as a matplotlib figure."""
        return figure_of_run(self.log, self.title)

    def table(self) -> Table:
        """Measurements before and after, and the verdict."""
        return measurements_table(self.before, self.after, self.verdict)

    def to_mapping(self) -> dict[str, Any]:
        """The run as JSON values."""
        state = self.loop.state
        return {
            "output": str(self.output),
            "reference": str(self.reference),
            "log": str(self.log),
            "steps": state.step,
            "stopped_early": self.loop.early_end is not None,
            "skipped": state.skipped,
            "best_step": state.best_step,
            "num_tokens": state.num_tokens,
            "loss_first": state.first.get("loss"),
            "loss_last": state.last.get("loss"),
            "constraint_ratio": state.constraint_ratio,
            "constraint_share": state.constraint_share,
            "alpha": state.alpha,
            "d_floor": state.d_floor,
            "train_seconds": state.seconds,
            "before": self.before and self.before.to_mapping(),
            "after": self.metrics,
            "verdict": self.verdict,
            "report": self.report and str(self.report),
        }


@workflow(TrainConfig)
def train(
    config: TrainConfig, sink: Sink, stop: Stop | None = None, by: JudgeLike | None = None
) -> TrainingRun:
    """Align a model with FPO, or another objective, on preference pairs.

    Finds, extends or builds the stored reference pass, trains, and measures start and end on
    held-out pairs. Everything lies in `output` afterwards. A KeyboardInterrupt, as by stopping a
    notebook's cell, leaves every checkpoint and the store whole: call again with `resume=True`.

    `stop` is asked between two steps: a number in place of None saves a checkpoint and raises
    StoppedError. `by` is a judge of fresh samples, or a function of a prompt and a completion, in
    place of the setting. Raises other FpoErrors for whatever is wrong with the settings, data or
    files.
    """
    if config.dry_run:
        raise ConfigError(
            "dry_run is set, which trains nothing: call preflight, or leave dry_run out"
        )
    check_account(config.push_to_hub)
    config = with_sae(config, sink)
    setup = ModelSetup(config)
    with writing_output(config.output, setup.group, config.process_timeout):
        run = train_validated(check_run(config, sink, setup), sink, stop, by=by)
    if not process_number():
        push(run.output, config.push_to_hub, sink)
    return run


@workflow(TrainConfig)
def preflight(config: TrainConfig, sink: Sink) -> PreflightReport:
    """Try a run's largest batches: its memory, time and disk. Trains and writes nothing."""
    run = check_run(with_sae(config, sink), sink)
    return _preflight(run, _policy(run, sink), sink)


def _policy(run: ValidatedRun, sink: Sink) -> Policy:
    note(sink, f"loading {run.setup.model.name}")
    policy = run.setup.policy(run.config, grad_checkpoint=run.config.grad_checkpoint)
    announce(sink, run.setup, run.data.report)
    if settings := _preset_settings(run):
        note(sink, f"preset {run.config.preset}: {', '.join(settings)}")
    hold_reference(policy, run.config, sink)
    return policy


def _preset_settings(run: ValidatedRun) -> list[str]:
    """What the run's preset set, in words."""
    config, width = run.config, run.setup.model.width
    shown = [f"{name} {value}" for name, value in config.of_preset.items()]
    rate = config.learning_rate_at(width)
    if rate is not None and rate == config.learning_rate:
        of = "a model of unknown width" if width is None else f"a model {width} wide"
        shown.insert(0, f"learning_rate {rate:g} for {of}")
    elif config.learning_rate is None and (least := config.least_rpo_alpha):
        peak = config.peak_learning_rate(config.fine_tune_type)
        shown.append(
            f"learning_rate {peak:g}, the optimizer's, for the preset's goes with an rpo_alpha of "
            f"{least:g} or more"
        )
    return shown


def _preflight(run: ValidatedRun, policy: Policy, sink: Sink) -> PreflightReport:
    return run_preflight(policy, run.data, run.store, run.setup.key, run.config, sink)


def train_validated(
    run: ValidatedRun,
    sink: Sink,
    stop: Stop | None = None,
    *,
    measure_start: bool = True,
    by: JudgeLike | None = None,
    **measuring: Any,
) -> TrainingRun:
    """Phase 1, phase 2, and the same measurements before and after.

    `by` judges the fresh samples of an online run in place of the settings' judge.
    `measuring` are options of `Measurer`; an `objective` among them is measured in place of the
    run's. Where the start is not measured, no model card is written either.
    """
    config, setup, data = run.config, run.setup, run.data
    group = setup.group
    online = _source(run, sink, by)
    policy = _policy(run, sink)
    # Before anything is written: a run that does not fit leaves no trace.
    if config.preflight and run.checkpoint is None:
        _preflight(run, policy, sink)
    store = setup.reference(run.store, splits_of(data), policy, config, sink)
    # After the pass: one that is interrupted leaves no run behind that would be in the way.
    folder = RunFolder(Path(config.output), setup.model, config, group)
    if run.checkpoint is None:
        only_first(group, folder.begin)
    only_first(group, lambda: pass_on(config.data, folder.path))
    degrader = Degrader.of(config, setup.tokenizer)
    run_data = RunData.of(data, store, setup.features, group, degrader)
    measurer = make_measurer(run, run_data, {"sink": sink} | measuring)
    # KL is against the start, which for a run from an adapter is not the bare model.
    start = reference_weights(policy) if _holds_start(config) else None
    before, report = None, None
    if measure_start:
        note(sink, "measuring the start")
        # Over a sharded model a pass is one of all processes; the first one alone writes.
        if config.report and takes_part(group, policy):
            report = TrainingReport(config, setup, measurer, data.report)
        with as_reference(policy):
            before = _at_the_reference(measurer.measure(policy))
            if report is not None:
                report.begin(policy)
    watch = _watch(config, measurer)
    result = _loop(run, policy, run_data, folder, sink, stop, online, watch)
    note(sink, "measuring the end" + _kl_cost(config, start))
    if start is not None:
        policy.set_reference(start)
    after = measurer.measure(policy, kl=start is not None)
    judged = findings(
        before,
        after,
        config,
        held_out=data.valid is not None,
        state=result.state,
        early_end=result.early_end,
    )
    trained = TrainingRun(
        output=folder.path,
        reference=run.store,
        log=folder.log,
        loop=result,
        before=before,
        after=after,
        verdict=verdict(judged),
        title=f"{shown(config.output)}, {setup.backend}",
    )
    if before is not None:
        start_values = before
        if report is not None:
            report.end(policy)
        only_first(group, lambda: _describe(run, trained, start_values, run_data, report, sink))
        if config.report:
            trained = replace(trained, report=folder.path / REPORT_FILE)
    return trained


def _loop(
    run: ValidatedRun,
    policy: Policy,
    run_data: RunData,
    folder: RunFolder,
    sink: Sink,
    stop: Stop | None,
    online: OnlineSource | None,
    watch: DriftWatch,
) -> TrainResult:
    """The steps of a run, between `begin` and `end`; the first process reports them for all."""
    group, checkpoint = run.setup.group, run.checkpoint
    if checkpoint is not None:
        note(sink, f"going on after step {checkpoint.state.step}")
    with contextlib.nullcontext([]) if group.rank else open_trackers(run.config) as trackers:
        # One log and one set of trackers, however many processes share the steps.
        emit = silent if group.rank else fan_out(JsonlLog(folder.log), sink, *trackers)
        sink(Event("begin", 0, {"processes": group.size}))
        try:
            asked = stop or (lambda: None)
            return train_loop(
                policy,
                run_data,
                run.config,
                folder,
                emit,
                checkpoint=checkpoint,
                stop=asked,
                online=online,
                watch=watch,
            )
        finally:
            sink(Event("end", 0))


def _watch(config: TrainConfig, measurer: Measurer) -> DriftWatch:
    """Drift by the perplexity of a few of the measurer's texts."""
    few = [measurer.texts[int(i)] for i in spread(len(measurer.texts), TEXTS)]
    return DriftWatch(config, replace(measurer, texts=few).perplexity if few else None)


def _judge(
    config: TrainConfig, setup: ModelSetup, sink: Sink, by: JudgeLike | None
) -> Judge | None:
    """The judge of fresh samples, in the process that asks it."""
    if config.route is None or not config.route.judged:
        return None
    if by is None and config.judge is None:
        raise ConfigError(f"judge is not set, but online {config.online} asks one: set judge")
    return None if setup.group.rank else choose_judge(config, config, sink, config.cache, by)


def _source(run: ValidatedRun, sink: Sink, by: JudgeLike | None) -> OnlineSource | None:
    """What draws and judges fresh samples; None where there are none."""
    config, setup = run.config, run.setup
    if config.online is None:
        return None
    tokenizer = setup.tokenizer
    return OnlineSource(
        _judge(config, setup, sink, by),
        prompt_text=lambda ids: bare_prompt(tokenizer, ids),
        text=lambda ids: tokenizer.decode(ids, skip_special_tokens=True),
        stop=setup.stop,
        sampler=training_sampler(setup, config, run.data.train),
    )


def _describe(
    run: ValidatedRun,
    trained: TrainingRun,
    before: Measurements,
    run_data: RunData,
    report: TrainingReport | None,
    sink: Sink,
) -> None:
    """Leave the curves, the model card and the report beside the result."""
    config, setup, folder = run.config, run.setup, trained.output
    draw_curves(trained.log, folder / PICTURE, trained.title)
    facts = RunFacts(
        base=config.model,
        backend=setup.backend,
        steps=trained.loop.state.step,
        rows={name: split.kept for name, split in run.data.report.splits.items()},
        data=run_data.fingerprints()["data"] or "",
        features=setup.features,
        before=before.to_mapping(),
        after=trained.metrics,
        verdict=trained.verdict,
        command=command_of(config),
        versions=versions_of(setup.backend),
        chat=bool(setup.tokenizer.chat_template),
    )
    if not write_card(folder, train_card(config, facts)):
        note(sink, f"{folder / CARD_FILE} is not of this program and was left as it is")
    if report is not None:
        result = trained.loop
        report.write(result, trained.log, before, trained.after, trained.verdict)


def _at_the_reference(measured: Measurements) -> Measurements:
    """The start is the reference itself: its KL is 0 and need not be measured."""
    measured.evaluation.metrics.update({"fpo/kl_chosen": 0.0, "fpo/kl_rejected": 0.0})
    return measured


def make_measurer(run: ValidatedRun, run_data: RunData, options: dict[str, Any]) -> Measurer:
    """The measurements of a run: its validation pairs, or training pairs where there are none."""
    config, setup = run.config, run.setup
    split = run_data.train if run_data.valid is None else run_data.valid
    asked = Questionnaire.of(config, run.questions, split, setup.tokenizer, setup.stop)
    options = {"objective": config, "pairs": config.val_pairs, "questionnaire": asked} | options
    return Measurer(
        data=run_data,
        split=split,
        tokens_per_batch=config.tokens_per_batch,
        tokenizer=setup.tokenizer,
        texts=run.texts,
        text_width=config.max_seq_length,
        **options,
    )


def _holds_start(config: TrainConfig) -> bool:
    """Whether the run can afford a copy of what it trains, to measure the KL from it at the end."""
    large = config.zeroth_order or config.shard
    return config.needs_kl or not (large and config.fine_tune_type == "full")


def _kl_cost(config: TrainConfig, start: dict[str, Any] | None) -> str:
    """Full fine-tuning has no adapter to switch off: the start is a copy of what was trained."""
    if config.fine_tune_type != "full":
        return ""
    if start is None:
        return " (without sequential KL, which would hold a copy of the trained weights)"
    size = sum(weight.nbytes for weight in start.values()) / 2**20
    return f" (sequential KL holds one extra copy of the trained weights, {size:.0f} MiB)"

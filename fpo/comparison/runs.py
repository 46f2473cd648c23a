"""Running what was planned: finished runs are read, a stopped one goes on, the others begin."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fpo.comparison.layout import RESULT_FILE, START_FILE, costs, run_folder
from fpo.comparison.plan import Planned
from fpo.comparison.shared_setup import SharedSetups
from fpo.comparison.tables import RunResult
from fpo.judge_choice import open_judge
from fpo.judged_samples import judge_samples
from fpo.measurements import Oracle
from fpo.model_setup import ModelSetup, splits_of
from fpo.run_checks import ValidatedRun, check_run
from fpo.store_location import shared_store
from fpo.training import make_measurer, train_validated
from fpo.workflow import Stop
from fpo_core.backend.policy import Sampling
from fpo_core.backend.reference_weights import as_reference
from fpo_core.config import BackendConfig, CompareConfig, ObjectiveConfig, TrainConfig
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, note
from fpo_core.io.atomic import write_json
from fpo_core.train.paired_data import RunData
from fpo_core.train.resume import FREE
from fpo_core.train.run_folder import LOG_FILE, checkpoints_in


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison, and how each is measured."""

    config: CompareConfig
    runs: Sequence[Planned]
    judge: Oracle | None
    sink: Sink
    stop: Stop | None = None
    setups: SharedSetups = field(default_factory=SharedSetups)

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return Path(self.config.output)

    def results(self) -> tuple[RunResult, list[RunResult]]:
        """The starting model's measurements, and the result of every run, in order."""
        done = [self._finished(planned) for planned in self.runs]
        left = sum(result is None for result in done)
        if left < len(done):
            note(self.sink, f"{len(done) - left} of {len(done)} runs are there already")
        start = self.measured_start()
        results = list(done)
        for number, planned in enumerate(self.runs):
            if results[number] is None:
                note(self.sink, f"run {number + 1} of {len(done)}: {planned.name}")
                results[number] = self._train(planned)
        return start, self._judged(start, [result for result in results if result is not None])

    def _judged(self, start: RunResult, results: list[RunResult]) -> list[RunResult]:
        """The results with what the settings' judge says of their samples against the start's."""
        if self.config.judge is None:
            return results
        computing = BackendConfig(
            **{n: getattr(self.config, n) for n in BackendConfig.names() if n != "seed"}
        )
        judge = open_judge(self.config, computing, self.sink)
        before = start["metrics"]["completions"]
        for result in results:
            note(self.sink, f"judging {result['variant']}, seed {result['seed']}")
            after = result["metrics"]["completions"]
            judged = judge_samples(judge, start["prompts"], after, before)
            result["judged"] = judged.to_mapping()
            result["metrics"]["judge_score"] = judged.after and judged.after.value
            if judged.wins is not None and judged.wins.rate and judged.wins.controlled:
                result["metrics"]["win_rate"] = judged.wins.rate.value
                result["metrics"]["win_rate_controlled"] = judged.wins.controlled.value
        return results

    def _finished(self, planned: Planned) -> RunResult | None:
        """The result of an earlier sitting. Raises ConfigError where it had other settings."""
        path = run_folder(self.folder, planned) / RESULT_FILE
        if not path.is_file():
            return None
        result = json.loads(path.read_text(encoding="utf-8"))
        before = result["config"]
        for key, value in planned.config.to_mapping().items():
            if key not in FREE and before.get(key) != value:
                raise ConfigError(
                    f"{path.parent} holds a run whose {key} was {before.get(key)}, and here it is "
                    f"{value}: name another output, or delete that folder"
                )
        return result

    def measured_start(self) -> RunResult:
        """The reference pass over all pairs, and the measurements of the model before any run."""
        path = self.folder / START_FILE
        if path.is_file():
            start = json.loads(path.read_text(encoding="utf-8"))
            if self.config.judge is None or "prompts" in start:
                return start
        checked = self._checked(self.runs[0])
        setup, config = checked.setup, checked.config
        policy = setup.policy(config, grad_checkpoint=config.grad_checkpoint)
        began = time.perf_counter()
        splits = splits_of(checked.data)
        store = setup.reference(checked.store, splits, policy, config, self.sink)
        seconds = time.perf_counter() - began
        note(self.sink, "measuring the start")
        data = RunData.of(checked.data, store, setup.features)
        measurer = make_measurer(checked, data, self._measuring(setup, config))
        with as_reference(policy):
            metrics = measurer.measure(policy).to_mapping()
        result = {
            "reference_seconds": seconds,
            "metrics": metrics,
            "prompts": measurer.prompt_texts(),
        }
        write_json(path, result)
        return result

    def _checked(self, planned: Planned) -> ValidatedRun:
        """The run with its own folder, and the store that all runs on this reference share."""
        folder = run_folder(self.folder, planned)
        resume = bool(checkpoints_in(folder).steps())
        config = replace(planned.config, output=str(folder), resume=resume, preflight=False)
        setup = self.setups.of(config)
        if config.reference is None:
            config = replace(config, reference=str(shared_store(setup, config.cache)))
        return check_run(config, self.sink, setup, finished_too=True)

    def _train(self, planned: Planned) -> RunResult:
        began = time.perf_counter()
        checked = self._checked(planned)
        measuring = self._measuring(checked.setup, checked.config)
        run = train_validated(checked, self.sink, self.stop, measure_start=False, **measuring)
        result = {
            "variant": planned.variant,
            "objective": planned.objective,
            "varied": planned.varied,
            "seed": planned.seed,
            "config": planned.config.to_mapping(),
            "metrics": run.after.to_mapping(),
            "constraint_ratio": run.loop.state.constraint_ratio,
            "constraint_share": run.loop.state.constraint_share,
            "skipped": run.loop.state.skipped,
            "seconds": time.perf_counter() - began,
        } | costs(run_folder(self.folder, planned) / LOG_FILE)
        write_json(run_folder(self.folder, planned) / RESULT_FILE, result)
        return result

    def _measuring(self, setup: ModelSetup, config: TrainConfig) -> dict[str, Any]:
        """The same yardstick for every run: dpo-norm's rewards, and D as all runs have it."""
        yardstick = {"k": config.k, "normalize_d": config.normalize_d}
        sampling = Sampling(
            self.config.max_tokens, self.config.temperature, 1.0, config.seed, setup.stop
        )
        return {
            "objective": ObjectiveConfig(objective="dpo-norm", beta=1.0, **yardstick),
            "pairs": self.config.eval_pairs,
            "samples": self.config.samples,
            "sampling": sampling,
            "sample_batch": max(self.config.samples, 1),
            "judge": self.judge,
            "questionnaire": None,
        }

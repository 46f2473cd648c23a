"""Running what was planned: finished runs are read, a stopped one goes on, the others begin."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fpo.comparison.plan import Planned
from fpo.comparison.shared import Sessions
from fpo.measure import Judge
from fpo.session import Session, splits_of
from fpo.stores import shared_store
from fpo.training import Checked, check_run, make_gauge, run
from fpo_cli.console.progress import ProgressDisplay
from fpo_cli.console.ui import Ui
from fpo_core.backend.policy import Sampling
from fpo_core.config import CompareConfig, ObjectiveConfig, TrainConfig
from fpo_core.errors import ConfigError
from fpo_core.io.atomic import write_json
from fpo_core.train import RunData
from fpo_core.train.resume import FREE
from fpo_core.train.run_folder import LOG_FILE, checkpoints_in

RESULT_FILE, START_FILE = "result.json", "start.json"
Result = dict[str, Any]
"""What a run came to: how it was made, what was measured, what it cost."""


@dataclass(frozen=True)
class Comparison:
    """The runs of a comparison, and how each is measured."""

    config: CompareConfig
    runs: Sequence[Planned]
    judge: Judge | None
    ui: Ui
    sessions: Sessions = field(default_factory=Sessions)

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return Path(self.config.output)

    def results(self) -> tuple[Result, list[Result]]:
        """The starting model's measurements, and the result of every run, in order."""
        done = [self._finished(planned) for planned in self.runs]
        left = sum(result is None for result in done)
        if left < len(done):
            self.ui.note(f"{len(done) - left} of {len(done)} runs are there already")
        start = self._start(self.runs[0])
        found = list(done)
        for number, planned in enumerate(self.runs):
            if found[number] is None:
                self.ui.note(f"run {number + 1} of {len(done)}: {planned.name}")
                found[number] = self._train(planned)
        return start, [result for result in found if result is not None]

    def _finished(self, planned: Planned) -> Result | None:
        """The result of an earlier sitting. Raises ConfigError where it had other settings."""
        path = place(self.folder, planned) / RESULT_FILE
        if not path.is_file():
            return None
        result = json.loads(path.read_text(encoding="utf-8"))
        before = result["config"]
        for key, value in planned.config.to_mapping().items():
            if key not in FREE and before.get(key) != value:
                raise ConfigError(
                    f"{path.parent} holds a run whose {key} was {before.get(key)}, and here it is "
                    f"{value}: name another --output, or delete that folder"
                )
        return result

    def _start(self, planned: Planned) -> Result:
        """The reference pass over all pairs, and the measurements of the model before any run."""
        path = self.folder / START_FILE
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        checked = self._checked(planned)
        session, config = checked.session, checked.config
        policy = session.policy(config, grad_checkpoint=config.grad_checkpoint)
        began = time.perf_counter()
        with ProgressDisplay(self.ui) as display:
            splits = splits_of(checked.data)
            store = session.reference(checked.store, splits, policy, config, display)
        seconds = time.perf_counter() - began
        self.ui.note("measuring the start")
        data = RunData.of(checked.data, store, session.features)
        measured = make_gauge(checked, data, self._measuring(session, config)).measure(policy)
        result = {"reference_seconds": seconds, "metrics": measured.to_mapping()}
        write_json(path, result)
        return result

    def _checked(self, planned: Planned) -> Checked:
        """The run with its own folder, and the store that all runs on this reference share."""
        folder = place(self.folder, planned)
        resume = bool(checkpoints_in(folder).steps())
        config = replace(planned.config, output=str(folder), resume=resume, preflight=False)
        session = self.sessions.of(config)
        if config.reference is None:
            config = replace(config, reference=str(shared_store(session, config.cache)))
        return check_run(config, self.ui, session, finished_too=True)

    def _train(self, planned: Planned) -> Result:
        began = time.perf_counter()
        checked = self._checked(planned)
        measuring = self._measuring(checked.session, checked.config)
        outcome = run(checked, self.ui, measure_start=False, **measuring)
        result = {
            "variant": planned.variant,
            "objective": planned.objective,
            "varied": planned.varied,
            "seed": planned.seed,
            "config": planned.config.to_mapping(),
            "metrics": outcome.after.to_mapping(),
            "constraint_ratio": outcome.result.state.constraint_ratio,
            "skipped": outcome.result.state.skipped,
            "seconds": time.perf_counter() - began,
        } | costs(place(self.folder, planned) / LOG_FILE)
        write_json(place(self.folder, planned) / RESULT_FILE, result)
        return result

    def _measuring(self, session: Session, config: TrainConfig) -> dict[str, Any]:
        """The same yardstick for every run: dpo-norm's rewards, and D as all runs have it."""
        yardstick = {"k": config.k, "normalize_d": config.normalize_d}
        sampling = Sampling(self.config.max_tokens, 1.0, 1.0, config.seed, session.stop)
        return {
            "objective": ObjectiveConfig(objective="dpo-norm", beta=1.0, **yardstick),
            "pairs": self.config.eval_pairs,
            "samples": self.config.samples,
            "sampling": sampling,
            "sample_batch": max(self.config.samples, 1),
            "judge": self.judge,
        }


def place(folder: Path, planned: Planned) -> Path:
    """The folder of a run in that of its comparison."""
    return folder / "runs" / planned.name


def costs(log: Path) -> dict[str, float]:
    """Seconds of all steps, their mean, and the largest memory, from a run's log."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    reports = [e for e in events if e["kind"] == "train" and "seconds_per_step" in e]
    steps = [
        after["step"] - before for after, before in zip(reports, _before(reports), strict=True)
    ]
    total = sum(e["seconds_per_step"] * count for e, count in zip(reports, steps, strict=True))
    return {
        "step_seconds": total,
        "seconds_per_step": total / max(sum(steps), 1),
        "peak_memory": max((e["peak_memory"] for e in reports), default=0),
    }


def _before(reports: list[dict[str, Any]]) -> list[int]:
    return [0, *(event["step"] for event in reports[:-1])]

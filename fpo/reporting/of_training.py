"""The report that training leaves: begun before the first step, written after the last."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpo.curves import read_log
from fpo.measurements import Measurements, Measurer
from fpo.model_setup import ModelSetup
from fpo.provenance import command_of, versions_of
from fpo.reporting.page import run_page
from fpo.reporting.page_file import REPORT_FILE, write_page
from fpo.reporting.record import Record, write_record
from fpo.reporting.reread import inspected_with_lens
from fpo.reporting.run_record import about_run, answers_of, measured, samples_of, settings_rows
from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.data.report import DataReport
from fpo_core.evaluation.inspection import ReferenceTokens, inspect, reference_tokens
from fpo_core.train.loop import TrainResult
from fpo_core.train.paired_data import spread


@dataclass
class TrainingReport:
    """Looks at the same pairs before and after training."""

    config: TrainConfig
    setup: ModelSetup
    measurer: Measurer
    data: DataReport
    _before: ReferenceTokens = field(init=False)
    _shown: Record = field(init=False)

    def begin(self, policy: Policy) -> None:
        """Score the tokens of the shown pairs with the policy as it starts, the reference."""
        split = self.measurer.split
        rows = spread(len(split), self.config.shown_pairs)
        budget = self.config.tokens_per_batch
        data = self.measurer.data
        self._before = reference_tokens(policy, data, split, rows, budget, swap=False)

    def end(self, policy: Policy) -> None:
        """Look at the same pairs again, and at the features that moved most."""
        config = self.config
        inspection = inspect(
            policy,
            self.measurer.data,
            self.measurer.split,
            config,
            pairs=config.shown_pairs,
            features=self.setup.features,
            shown_features=config.shown_features,
            tokens_per_batch=config.tokens_per_batch,
            before=self._before,
            emit=self.measurer.sink,
        )
        self._shown = inspected_with_lens(
            policy, inspection, self.setup.tokenizer, self.setup.features, config
        )

    def write(
        self,
        result: TrainResult,
        log: Path,
        before: Measurements,
        after: Measurements,
        verdict: list[str],
    ) -> Path:
        """Write record and page beside the result; the page's path."""
        config, folder = self.config, log.parent
        start, end = before.to_mapping(), after.to_mapping()
        answers = after.with_samples(before).get("samples", ())
        versions = versions_of(self.setup.backend).items()
        values: dict[str, Any] = {
            "title": folder.resolve().name,
            "about": [
                *about_run(config, self.setup.backend, result.state.step),
                *(f"{name} {version}" for name, version in versions if version),
            ],
            "verdict": verdict,
            "before": start,
            "after": end,
            "measured": measured(start, end),
            "data": self.data.lines(),
            "command": command_of(config),
            "samples": answers_of(answers) + samples_of(self._prompts(), start, end),
        }
        record = write_record(folder, values | settings_rows(config) | self._shown)
        write_page(folder / REPORT_FILE, run_page(record, read_log(log)))
        return folder / REPORT_FILE

    def _prompts(self) -> list[str]:
        decode = self.setup.tokenizer.decode
        return [decode(ids, skip_special_tokens=True) for ids in self.measurer.prompts()]

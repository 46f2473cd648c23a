"""`report`: the page of a run, or of several side by side, from what they left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.curves import read_log
from fpo.reporting.page import run_page
from fpo.reporting.page_file import REPORT_FILE, write_page
from fpo.reporting.record import NOT_A_RECORD, RECORD_FILE, Record, damaged, read_record
from fpo.reporting.reread import computed_by, inspect_again, record_of_log
from fpo.reporting.several import is_comparison, page_of_comparison, page_of_runs
from fpo.results import Result
from fpo.workflow import workflow
from fpo_core.adapters.writer import CONFIG_FILE as ADAPTER_FILE
from fpo_core.config import ReportConfig
from fpo_core.errors import ConfigError
from fpo_core.events import Sink, note
from fpo_core.train.run_folder import CONFIG_FILE, LOG_FILE


@dataclass(frozen=True, kw_only=True)
class Report(Result):
    """A page that was written."""

    file: Path
    runs: list[Path]
    bytes: int

    def to_mapping(self) -> dict[str, Any]:
        """The report as JSON values."""
        runs = [str(run) for run in self.runs]
        return {"file": str(self.file), "runs": runs, "bytes": self.bytes}


@workflow(ReportConfig)
def report(config: ReportConfig, sink: Sink) -> Report:
    """Make the page of a run, or of several side by side, as one HTML file that loads nothing.

    Of a run it shows verdict, measurements, curves, held-out pairs token by token, samples and the
    features that moved; of several, accuracy against KL, a table and the settings that differ. What
    a run left is enough; where it left nothing, or more is asked for, the model is read again.
    Raises ConfigError for a folder that no run made.
    """
    folders = [Path(run) for run in config.runs]
    for folder in folders:
        check_run_folder(folder)
    out = Path(config.output) if config.output else _default(folders)
    if len(folders) > 1 or is_comparison(folders[0]):
        _refuse_reading(config)
    if len(folders) > 1:
        text = page_of_runs(folders)
    elif is_comparison(folders[0]):
        text = page_of_comparison(folders[0])
    else:
        text = _page_of_run(folders[0], config, sink)
    return Report(file=out, runs=folders, bytes=write_page(out, text))


def check_run_folder(folder: Path) -> None:
    """Raise ConfigError for a folder that neither training nor a comparison wrote."""
    if is_comparison(folder) or (folder / CONFIG_FILE).is_file():
        return
    there = "holds no run" if folder.is_dir() else "is no folder"
    raise ConfigError(f"{folder} {there}, expected the output of training, or of a comparison")


def _refuse_reading(config: ReportConfig) -> None:
    """Raise ConfigError where a page of several runs is asked for what needs their models."""
    shown = {name: getattr(config, name) for name in ("shown_pairs", "shown_features")}
    asked = {name: value for name, value in shown.items() if value is not None}
    for name, value in (asked | computed_by(config)).items():
        raise ConfigError(
            f"{name} is {value}, but a page of several runs shows neither pairs nor features: "
            "leave it out, or make the page of one run"
        )


def _has_result(folder: Path) -> bool:
    """Whether training came to its end, and left an adapter or a model."""
    return any((folder / name).is_file() for name in (ADAPTER_FILE, "config.json"))


def _default(folders: list[Path]) -> Path:
    return (folders[0] if len(folders) == 1 else Path()) / REPORT_FILE


def _page_of_run(folder: Path, config: ReportConfig, sink: Sink) -> str:
    record, events = _record(folder, config, sink), read_log(folder / LOG_FILE)
    try:
        return run_page(record, events)
    except NOT_A_RECORD as error:
        raise damaged(folder / RECORD_FILE, error) from None


def _record(folder: Path, config: ReportConfig, sink: Sink) -> Record:
    """What the run left; pairs and features anew where others are asked for."""
    record = read_record(folder)
    asked = (config.shown_pairs, config.shown_features)
    left = (None, None) if record is None else (record.get("shown") or (None, None))
    fits = all(a in (None, b) for a, b in zip(asked, left, strict=True))
    elsewhere = bool(computed_by(config))
    if record is not None and "pairs" in record and fits and not elsewhere:
        return record
    if record is None and not _has_result(folder):
        note(sink, f"{folder} holds no result yet: its settings and curves alone")
        return record_of_log(folder)
    again = inspect_again(folder, config, sink, None if elsewhere else record)
    return (record or record_of_log(folder)) | again

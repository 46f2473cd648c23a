"""Reporting before a run what it will need, and what would stop it."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo.model_setup import splits_of
from fpo.results import Result, Table
from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.data.load import PreferenceData
from fpo_core.events import Sink, note, warn
from fpo_core.reference.build import missing_pairs
from fpo_core.reference.key import StoreKey
from fpo_core.train.preflight import Preflight, preflight, relief

_FEW_STEPS = 20
"""Steps below which a rate that warms up and falls has no time to train anything."""
_SLEEP = re.compile(r"^\s*sleep\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class PreflightReport(Result):
    """What a run will need: see `estimate` for memory, time and disk."""

    estimate: Preflight

    def to_mapping(self) -> dict[str, Any]:
        """The estimate as JSON values."""
        return self.estimate.to_mapping()

    def table(self) -> Table:
        """The estimate in sentences."""
        return Table((), (), self.lines())

    def lines(self) -> list[str]:
        """Memory, time and disk, a line each."""
        it = self.estimate
        limit = "" if it.memory_limit is None else f" of {_gib(it.memory_limit)}"
        return [
            f"largest batch {it.pairs} pairs × {it.width} tokens: peak memory "
            f"{_gib(it.peak_memory)}{limit}",
            f"{it.steps} steps of about {it.seconds_per_step:.2g} s: training "
            f"{_duration(it.train_seconds)}, validation {_duration(it.validation_seconds)}, "
            f"measuring start and end {_duration(it.measuring_seconds)}, reference "
            f"{_duration(it.reference_seconds)}",
            *self._sampling(),
            f"disk: at most {_gib(it.disk_bytes)}, {_gib(it.disk_free)} free",
        ]

    def _sampling(self) -> list[str]:
        seconds = self.estimate.sampling_seconds
        return (
            [f"fresh samples {_duration(seconds)}, beside what the judge takes"] if seconds else []
        )


def run_preflight(
    policy: Policy,
    data: PreferenceData,
    store: Path,
    key: StoreKey,
    config: TrainConfig,
    sink: Sink,
) -> PreflightReport:
    """Try the largest batches and report what follows from them."""
    note(sink, "trying the largest batches")
    missing = sum(map(len, missing_pairs(store, key, splits_of(data))))
    estimate = preflight(policy, data.train, data.valid, config, missing=missing, emit=sink)
    report = PreflightReport(estimate)
    for line in report.lines():
        note(sink, line)
    if not estimate.fits:
        warn(sink, f"that is nearly all memory of the device: {relief(config)}")
    if config.iters is None and estimate.steps < _FEW_STEPS:
        pairs = config.batch_size * config.grad_accumulation_steps
        warn(
            sink,
            f"{len(data.train)} pairs are only {estimate.steps} steps of {pairs} pairs: lower "
            "grad_accumulation_steps or batch_size, or raise epochs",
        )
    sleep = sleep_minutes()
    if sleep is not None and estimate.seconds > 60 * sleep:
        warn(
            sink,
            f"this Mac sleeps after {sleep} idle minutes, which would stop the run: start its "
            "program behind `caffeinate -i`",
        )
    return report


def sleep_minutes() -> int | None:
    """Idle minutes after which macOS goes to sleep; None where it never does, or is another."""
    if sys.platform != "darwin":
        return None
    try:
        text = subprocess.run(
            ["/usr/bin/pmset", "-g"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    setting = _SLEEP.search(text)
    return int(setting[1]) or None if setting else None


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"

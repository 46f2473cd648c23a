"""Saying before a run what it will need, and what would stop it."""

import re
import subprocess
import sys
from pathlib import Path

from fpo.session import splits_of
from fpo_cli.console.ui import Ui
from fpo_core.backend.policy import Policy
from fpo_core.config import TrainConfig
from fpo_core.data.load import PreferenceData
from fpo_core.reference import StoreKey
from fpo_core.reference.build import missing_pairs
from fpo_core.train.preflight import Preflight, preflight, relief

_SLEEP = re.compile(r"^\s*sleep\s+(\d+)", re.MULTILINE)


def foresee(
    policy: Policy, data: PreferenceData, store: Path, key: StoreKey, config: TrainConfig, ui: Ui
) -> Preflight:
    """Try the largest batches and tell the user what follows from them."""
    ui.note("trying the largest batches")
    missing = sum(map(len, missing_pairs(store, key, splits_of(data))))
    found = preflight(policy, data.train, data.valid, config, missing=missing)
    for line in lines(found):
        ui.note(line)
    if not found.fits:
        ui.warn(f"that is nearly all memory of the device: {relief(config)}")
    sleep = sleep_minutes()
    if sleep is not None and found.train_seconds + found.reference_seconds > 60 * sleep:
        ui.warn(
            f"this Mac sleeps after {sleep} idle minutes, which would stop the run: start it as "
            "`caffeinate -i fpo train …`"
        )
    return found


def lines(found: Preflight) -> list[str]:
    """The estimate for people."""
    limit = "" if found.memory_limit is None else f" of {_gib(found.memory_limit)}"
    return [
        f"largest batch {found.pairs} pairs × {found.width} tokens: peak memory "
        f"{_gib(found.peak_memory)}{limit}",
        f"{found.steps} steps of about {found.seconds_per_step:.2g} s: training "
        f"{_duration(found.train_seconds)}, reference {_duration(found.reference_seconds)}",
        f"disk: at most {_gib(found.disk_bytes)}, {_gib(found.disk_free)} free",
    ]


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
    found = _SLEEP.search(text)
    return int(found[1]) or None if found else None


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"

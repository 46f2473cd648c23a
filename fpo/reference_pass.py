"""What `fpo reference` does: checks, then the frozen model once over every pair."""

import time
from pathlib import Path
from typing import Any

from fpo.session import FROZEN, Session, splits_of
from fpo.stores import shared_store
from fpo.training import announce
from fpo_cli.console.progress import ProgressDisplay
from fpo_cli.console.ui import Ui
from fpo_core.backend.process_group import first_before_others
from fpo_core.config import ReferenceRunConfig
from fpo_core.events import silent
from fpo_core.reference.build import missing_pairs


def build_reference(config: ReferenceRunConfig, ui: Ui) -> dict[str, Any]:
    """Build the store, or add what it lacks; the mapping that --json prints."""
    start = time.perf_counter()
    session = Session(config)
    with first_before_others(session.group):
        features = session.features
        data = session.load_data(config)
        named = config.reference
        folder = shared_store(session, config.cache) if named is None else Path(named)
        splits = splits_of(data)
        missing = sum(map(len, missing_pairs(folder, session.key, splits)))
    if missing:
        policy = session.policy(FROZEN)
        announce(ui, session, data.report)
        with ProgressDisplay(ui) as display:
            emit = silent if session.group.rank else display
            session.reference(folder, splits, policy, config, emit)
    pairs = sum(map(len, splits))
    size = sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
    ui.say(f"{folder}: {pairs} pairs, {missing} of them new, {size / 2**20:.1f} MiB")
    return {
        "reference": str(folder),
        "backend": session.backend,
        "pairs": pairs,
        "new_pairs": missing,
        "bytes": size,
        "sae": config.sae,
        "hook": None if features is None else [str(hook) for hook in features.hooks],
        "key": session.key.to_mapping(),
        "data": data.report.to_mapping(),
        "seconds": time.perf_counter() - start,
    }

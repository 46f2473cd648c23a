"""Phase 1 by itself: checks, then the frozen model once over every pair."""

import time
from dataclasses import dataclass
from pathlib import Path

from fpo.model_setup import FROZEN, ModelSetup, splits_of
from fpo.results import Result, Table
from fpo.run_checks import announce, check_positions
from fpo.store_location import shared_store
from fpo.workflow import workflow
from fpo_core.backend.process_group import first_before_others
from fpo_core.config import ReferenceRunConfig
from fpo_core.data.report import DataReport
from fpo_core.events import Sink, note, silent
from fpo_core.reference.build import missing_pairs
from fpo_core.reference.key import StoreKey


@dataclass(frozen=True, kw_only=True)
class StoredReference(Result):
    """The store of a frozen model's pass, complete for the data."""

    reference: Path
    backend: str
    pairs: int
    new_pairs: int
    """Pairs that this call added."""
    bytes: int
    """Size of the store."""
    sae: tuple[str, ...] | None
    hook: list[str] | None
    """Where the autoencoders read the model."""
    key: StoreKey
    data: DataReport
    seconds: float

    def table(self) -> Table:
        """Folder and counts."""
        size = f"{self.bytes / 2**20:.1f} MiB"
        row = (str(self.reference), str(self.pairs), str(self.new_pairs), size)
        return Table(("reference", "pairs", "new", "size"), [row], self.data.lines())


@workflow(ReferenceRunConfig)
def reference(config: ReferenceRunConfig, sink: Sink) -> StoredReference:
    """Run the frozen model once over all pairs, and store what it computes.

    `train` does this by itself where needed; a store built here can be shared between runs. Stopped
    at any point, the same call goes on from where it was. Without `reference` the store lies in the
    cache, where `train` and `evaluate` find it.
    """
    start = time.perf_counter()
    setup = ModelSetup(config)
    with first_before_others(setup.group):
        features = setup.features
        data = setup.load_data(config)
        chosen = config.reference
        folder = shared_store(setup, config.cache) if chosen is None else Path(chosen)
        splits = splits_of(data)
        check_positions(setup.model, splits, config, sink)
        missing = sum(map(len, missing_pairs(folder, setup.key, splits)))
    # A complete store needs no model: only the data was read.
    if missing:
        setup.settle_dtype(sink, folder)
        note(sink, f"loading {setup.model.name}")
        policy = setup.policy(FROZEN)
        announce(sink, setup, data.report)
        emit = silent if setup.group.rank else sink
        setup.reference(folder, splits, policy, config, emit)
    return StoredReference(
        reference=folder,
        backend=setup.backend,
        pairs=sum(map(len, splits)),
        new_pairs=missing,
        bytes=sum(path.stat().st_size for path in folder.glob("*") if path.is_file()),
        sae=config.sae,
        hook=None if features is None else [str(hook) for hook in features.hooks],
        key=setup.key,
        data=data.report,
        seconds=time.perf_counter() - start,
    )

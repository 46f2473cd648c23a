"""What a reference store depends on: two stores with equal keys hold the same numbers."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.errors import StoreError

FORMAT = "fpo-reference"
VERSION = 2
MANIFEST = "manifest.json"
COLUMNS = (
    *("key", "logps", "lengths", "feature_lengths", "nonzeros"),
    *("offsets", "indices", "values"),
)
"""The arrays of a shard."""


@dataclass(frozen=True)
class StoreKey:
    """Identity of the reference: model, adapter, autoencoder, hook and pooling."""

    model: str
    """Fingerprint of the model's configuration and weights."""
    adapter: str | None = None
    """Fingerprint of the adapter that the reference starts with."""
    sae: str | None = None
    """SHA-256 of each autoencoder's payload; None where no features are stored."""
    hook: str | None = None
    """Where each autoencoder reads the model."""
    pooling: str | None = None
    """Which completion tokens the pooled features leave out."""

    def differences(self, stored: "StoreKey") -> list[str]:
        """What a run with this key would find different in a store with another, a line each.

        A run without an autoencoder reads only log-probabilities, so any stored features will do.
        """
        ignored = {"sae", "hook", "pooling"} if self.sae is None else set()
        return [
            f"{f.name}: the store has {_shown(getattr(stored, f.name))}, "
            f"this run has {_shown(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if f.name not in ignored and getattr(stored, f.name) != getattr(self, f.name)
        ]

    def check(self, stored: "StoreKey", folder: Path) -> None:
        """Raise StoreError listing what differs, where anything does."""
        differences = self.differences(stored)
        if differences:
            raise StoreError(
                f"the reference store {folder} was made from something else "
                f"({'; '.join(differences)}): name another --reference folder, or delete this one"
            )

    def to_mapping(self) -> dict[str, Any]:
        """The key as JSON values."""
        return dataclasses.asdict(self)


def _shown(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= 40 else value[:12] + "…"

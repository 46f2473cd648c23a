"""What the numbers of a reference store depend on, and its file format's constants."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fpo_core.errors import StoreError


@dataclass(frozen=True)
class StoreKey:
    """What the stored numbers depend on; stores with equal keys hold the same numbers."""

    model: str
    """Fingerprint of the model's configuration and weights."""
    adapter: str | None = None
    """Fingerprint of the reference's adapter, if any."""
    sae: str | None = None
    """SHA-256 of each autoencoder's payload, joined by +; None where no features are stored."""
    hook: str | None = None
    """The hook of each autoencoder, joined by +."""
    pooling: str | None = None
    """How features are pooled, and which token ids are excluded."""

    def differences(self, stored: "StoreKey") -> list[str]:
        """How the key of a store differs from this one, a line per field.

        A run without an autoencoder reads only log-probabilities and accepts any features.
        """
        ignored = {"sae", "hook", "pooling"} if self.sae is None else set()
        return [
            f"{f.name}: the store has {_shown(getattr(stored, f.name))}, "
            f"this run has {_shown(getattr(self, f.name))}"
            for f in dataclasses.fields(self)
            if f.name not in ignored and getattr(stored, f.name) != getattr(self, f.name)
        ]

    def check(self, stored: "StoreKey", folder: Path) -> None:
        """Raise StoreError with the differences, if there are any."""
        differences = self.differences(stored)
        if differences:
            raise StoreError(
                f"the reference store {folder} was made from something else "
                f"({'; '.join(differences)}): name another reference folder, or delete this one"
            )

    def to_mapping(self) -> dict[str, Any]:
        """The key as JSON values."""
        return dataclasses.asdict(self)


def _shown(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= 40 else value[:12] + "…"

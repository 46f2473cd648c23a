"""A model's safetensors files as one table of weights, read one at a time."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from fpo_core.io.reader import FLOAT_CODES, SafetensorsFile, open_safetensors
from fpo_core.models.folder import ModelFolder

FLOAT_NAMES = {code: name for name, code in FLOAT_CODES.items()}
"""The usual names of the precisions by safetensors' codes."""


class Dequantiser(Protocol):
    """Reads quantised weights; only their framework can."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that a weight has when it is whole."""
        ...

    def weight(self, name: str) -> np.ndarray:
        """A weight in float32."""
        ...


@dataclass(frozen=True)
class ModelWeights:
    """The weights of a model folder by name; scales and biases of quantised ones are no names."""

    files: list[SafetensorsFile]
    dequantiser: Dequantiser | None = None

    @classmethod
    def open(cls, model: ModelFolder, dequantiser: Dequantiser | None = None) -> "ModelWeights":
        """Open a folder's files. Raises SaeError for an irregular one."""
        return cls([open_safetensors(path) for path in model.weight_files], dequantiser)

    @cached_property
    def _home(self) -> dict[str, SafetensorsFile]:
        return {name: file for file in self.files for name in file.entries}

    def names(self, file: SafetensorsFile) -> list[str]:
        """The weights that a file holds."""
        parts = (".scales", ".biases")
        return [n for n in file.entries if not (n.endswith(parts) and self.quantised(_whole(n)))]

    def quantised(self, name: str) -> bool:
        """Whether a weight is stored with scales."""
        return name.endswith(".weight") and _scales(name) in self._home

    def dtype(self, name: str) -> str:
        """safetensors' code of a weight's precision; of a quantised one, that of its scales."""
        stored = _scales(name) if self.quantised(name) else name
        code = self._home[stored].entries[stored].dtype
        return code if stored == name or code in FLOAT_NAMES else "BF16"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight when it is whole."""
        if self.quantised(name) and self.dequantiser is not None:
            return self.dequantiser.shape(name)
        return self._home[name].entries[name].shape

    def weight(self, name: str) -> np.ndarray:
        """A weight in float32."""
        if self.quantised(name) and self.dequantiser is not None:
            return self.dequantiser.weight(name)
        return self._home[name].rows(name)

    def stored(self, name: str) -> np.ndarray:
        """A weight as it is stored, in its own dtype."""
        return self._home[name].stored(name)


def _scales(name: str) -> str:
    return name.removesuffix(".weight") + ".scales"


def _whole(part: str) -> str:
    return part.rsplit(".", 1)[0] + ".weight"

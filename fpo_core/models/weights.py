"""The weights of a model folder by name, across its safetensors files, read one at a time."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from fpo_core.io.reader import FLOAT_CODES, SafetensorsFile, open_safetensors
from fpo_core.models.folder import ModelFolder

FLOAT_NAMES = {code: name for name, code in FLOAT_CODES.items()}
"""The usual names of the precisions by safetensors' codes."""


class Dequantiser(Protocol):
    """Reads quantised weights, which takes the framework that quantised them."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the dequantised weight."""
        ...

    def weight(self, name: str) -> np.ndarray:
        """A weight in float32."""
        ...


@dataclass(frozen=True)
class ModelWeights:
    """The weights by name; a quantised one, its scales and its biases count as one weight."""

    files: list[SafetensorsFile]
    dequantiser: Dequantiser | None = None

    @classmethod
    def open(cls, model: ModelFolder, dequantiser: Dequantiser | None = None) -> "ModelWeights":
        """Open a folder's files. Raises SaeError for an irregular one."""
        return cls([open_safetensors(path) for path in model.weight_files], dequantiser)

    @cached_property
    def _file_of(self) -> dict[str, SafetensorsFile]:
        return {name: file for file in self.files for name in file.entries}

    def names(self, file: SafetensorsFile) -> list[str]:
        """The names of the weights in a file."""
        parts = (".scales", ".biases")
        return [n for n in file.entries if not (n.endswith(parts) and self.quantised(_owner(n)))]

    def quantised(self, name: str) -> bool:
        """Whether a weight is stored with scales."""
        return name.endswith(".weight") and _scales(name) in self._file_of

    def dtype(self, name: str) -> str:
        """safetensors' code of a weight's dtype; for a quantised one, the dtype of its scales."""
        stored = _scales(name) if self.quantised(name) else name
        code = self._file_of[stored].entries[stored].dtype
        # The scales of mxfp4 are U8 exponents: such models compute in bfloat16.
        return code if stored == name or code in FLOAT_NAMES else "BF16"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a weight, dequantised."""
        if self.quantised(name) and self.dequantiser is not None:
            return self.dequantiser.shape(name)
        return self._file_of[name].entries[name].shape

    def weight(self, name: str) -> np.ndarray:
        """A weight in float32."""
        if self.quantised(name) and self.dequantiser is not None:
            return self.dequantiser.weight(name)
        return self._file_of[name].rows(name)

    def stored(self, name: str) -> np.ndarray:
        """A weight as it is stored, in its own dtype."""
        return self._file_of[name].stored(name)


def _scales(name: str) -> str:
    return name.removesuffix(".weight") + ".scales"


def _owner(part: str) -> str:
    """The weight that scales or biases belong to."""
    return part.rsplit(".", 1)[0] + ".weight"

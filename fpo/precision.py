"""The precision that `dtype` auto stands for on a CPU: known from before, or found by a probe."""

from pathlib import Path
from typing import Any

import numpy as np

from fpo.backends import backend_module
from fpo_core.backend.precision import ROWS, SMALLEST, WIDEST, probe
from fpo_core.backend.process_group import Group
from fpo_core.config import ModelConfig
from fpo_core.events import Sink, note
from fpo_core.models.folder import hidden_size
from fpo_core.reference.reader import ReferenceStore


def computes_on_cpu(backend: str, config: ModelConfig) -> bool:
    """Whether a model of these settings will run on the CPU."""
    return str(backend_module(backend, "device").select_device(config)) == "cpu"


def stored_dtype(folder: Path) -> str | None:
    """The precision that a reference store was made in; None where there is none."""
    if not ReferenceStore.exists(folder):
        return None
    return ReferenceStore.made_with(folder).get("dtype")


def faster_dtype(backend: str, model: dict[str, Any], group: Group, sink: Sink) -> str:
    """float32 or bfloat16 by a probe at the size of a model; the first process decides for all."""
    inner = hidden_size(model) or 0
    outer = int(model.get("intermediate_size") or 4 * inner)
    chosen = "float32"
    if not group.rank and inner >= SMALLEST:
        sizes = (min(pair) for pair in zip((inner, outer), WIDEST, strict=True))
        timing = probe(backend_module(backend, "doctor").products(ROWS, *sizes))
        chosen = timing.dtype
        note(sink, f"computing in {chosen}: {timing}")
    wide = group.sum(np.array([chosen == "bfloat16"], np.float32))
    return "bfloat16" if wide[0] else "float32"

"""The file of feature weights: which features D compares, and how much each counts (§5.3)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.io.atomic import write_json
from fpo_core.sae.metadata import SaeMeta

FORMAT = "fpo-feature-weights"


def write_weights(path: Path, sae: SaeMeta, weights: Mapping[int, float], **about: Any) -> None:
    """Write weights by feature index, tied to an autoencoder by the hash of its payload."""
    listed = {str(index): float(weight) for index, weight in weights.items()}
    tied = {"format": FORMAT, "version": 1, "sae": sae.payload_sha256}
    write_json(path, tied | about | {"weights": listed})


def read_weights(path: Path, sae: SaeMeta) -> np.ndarray:
    """The weights as (d_sae,) float32, 0 where none is given.

    Raises SaeError for a file that is damaged, empty, or of another autoencoder.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed = {int(index): float(weight) for index, weight in content["weights"].items()}
        made_for = content["sae"]
    except OSError as error:
        raise SaeError(f"the feature weights {path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SaeError(
            f"{path} is no file of feature weights ({error!r}): make one with `fpo sae features`"
        ) from None
    if made_for != sae.payload_sha256:
        raise SaeError(
            f"the feature weights {path} are of another autoencoder ({str(made_for)[:12]}…, this "
            f"one is {sae.payload_sha256[:12]}…): make them again with `fpo sae features`"
        )
    weights = np.zeros(sae.d_sae, np.float32)
    for index, weight in listed.items():
        if not 0 <= index < sae.d_sae or not math.isfinite(weight) or weight <= 0:
            raise SaeError(
                f"{path} gives feature {index} the weight {weight}, expected an index below "
                f"{sae.d_sae} and a weight above 0"
            )
        weights[index] = weight
    if not listed:
        raise SaeError(f"{path} weights no feature, expected at least one")
    return weights

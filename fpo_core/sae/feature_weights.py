"""The feature-weights file: which features D compares, and with what weights (§5.3)."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fpo_core.errors import SaeError
from fpo_core.io.atomic import write_json
from fpo_core.io.ownership import check_foreign
from fpo_core.io.regular import read_json_object
from fpo_core.sae.metadata import SaeMeta

FORMAT = "fpo-feature-weights"


def write_weights(path: Path, sae: SaeMeta, weights: Mapping[int, float], **about: Any) -> None:
    """Write weights by feature index; the autoencoder's payload hash is stored to be checked."""
    check_foreign([path], _is_weights_file, "out")
    by_index = {str(index): float(weight) for index, weight in weights.items()}
    header = {"format": FORMAT, "version": 1, "sae": sae.payload_sha256}
    write_json(path, header | about | {"weights": by_index})


def _not_weights(text: str) -> SaeError:
    return SaeError(f"{text}; it is not a feature-weights file: make one by ranking features")


def _is_weights_file(path: Path) -> bool:
    try:
        return read_json_object(path, SaeError).get("format") == FORMAT
    except SaeError:
        return False


def read_weights(path: Path, sae: SaeMeta) -> np.ndarray:
    """The weights as (d_sae,) float32, 0 for features that the file does not list.

    Raises SaeError for a file that is damaged, lists none, or belongs to another autoencoder.
    """
    try:
        content = read_json_object(path, _not_weights)
        by_index = {int(index): float(weight) for index, weight in content["weights"].items()}
        payload = content["sae"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SaeError(
            f"{path} is not a feature-weights file ({error!r}): make one by ranking features"
        ) from None
    if payload != sae.payload_sha256:
        raise SaeError(
            f"the feature weights {path} belong to another autoencoder ({str(payload)[:12]}…, "
            f"expected {sae.payload_sha256[:12]}…): rank the features of this one"
        )
    weights = np.zeros(sae.d_sae, np.float32)
    for index, weight in by_index.items():
        if not 0 <= index < sae.d_sae or not math.isfinite(weight) or weight <= 0:
            raise SaeError(
                f"{path} gives feature {index} the weight {weight}, expected an index below "
                f"{sae.d_sae} and a weight above 0"
            )
        weights[index] = weight
    if not by_index:
        raise SaeError(f"{path} lists no feature, expected at least one: rank features again")
    return weights

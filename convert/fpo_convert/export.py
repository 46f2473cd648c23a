"""A canonical autoencoder as a folder that SAELens opens, with the same features."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fpo_convert.formats.sae_lens import CONFIG, WEIGHTS
from fpo_core.errors import SaeError
from fpo_core.io.atomic import new_folder
from fpo_core.sae.sae import Sae, load_sae

SAE_LENS_VERSION = "6.54.12"
_ARCHITECTURES = {"relu": "standard"}


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, in plain values."""

    source: str
    out: str
    architecture: str
    files: list[str]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return dataclasses.asdict(self)


def export_sae_lens(canonical: str | Path, out_dir: str | Path) -> ExportReport:
    """Write a canonical file as a float32 SAELens checkpoint into a new or empty folder.

    Raises SaeError for a file without its decoder, which SAELens requires, ConfigError for a folder
    that holds something. Nothing is left behind on any error.
    """
    sae, out = load_sae(canonical), Path(out_dir)
    if not sae.has_decoder:
        raise SaeError(
            f"{canonical} was converted without its decoder, which SAELens requires: convert the "
            "original again without encoder_only"
        )
    with new_folder(out) as folder:
        save_file(_arrays(sae), folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(sae_lens_cfg(sae), indent=1), encoding="utf-8")
    size = sum(path.stat().st_size for path in out.iterdir())
    return ExportReport(
        str(canonical), str(out), sae_lens_cfg(sae)["architecture"], [CONFIG, WEIGHTS], size
    )


def sae_lens_cfg(sae: Sae) -> dict[str, Any]:
    """The cfg.json that SAELens reads for a canonical autoencoder."""
    ids = [int(token[3:]) for token in sae.untrained_tokens if token.startswith("id:")]
    metadata = {
        "sae_lens_version": SAE_LENS_VERSION,
        "model_name": sae.model_name,
        "hook_name": str(sae.hook) if sae.hook else None,
        "prepend_bos": "bos" not in sae.untrained_tokens or "special" in sae.untrained_tokens,
        "exclude_special_tokens": ids or "special" in sae.untrained_tokens,
        "neuronpedia_id": sae.neuronpedia_id or None,
        "fpo_untrained_tokens": list(sae.untrained_tokens),
        "fpo_centred": sae.centred,
        "fpo_without_value_bias": sae.without_value_bias,
    }
    cfg: dict[str, Any] = {
        "architecture": _ARCHITECTURES.get(sae.architecture, sae.architecture),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": sae.input_transform,
        "reshape_activations": "hook_z" if sae.hook and sae.hook.site == "z" else "none",
        "metadata": metadata,
    }
    if sae.k is not None:
        cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    return cfg


def _arrays(sae: Sae) -> dict[str, np.ndarray]:
    arrays = dict(sae.arrays())
    if sae.architecture == "gated":
        arrays["b_gate"] = arrays.pop("b_enc")
    return arrays

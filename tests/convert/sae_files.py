"""Tiny checkpoints for the converter's tests, written by hand in each format's exact layout."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

D_IN, D_SAE = 8, 24


def weights(seed=0, *, gated=False, threshold=False):
    """SAELens tensors with deterministic values."""
    rng = np.random.default_rng(seed)
    tensors = {
        "W_enc": rng.normal(size=(D_IN, D_SAE)),
        "W_dec": rng.normal(size=(D_SAE, D_IN)),
        "b_dec": rng.normal(size=D_IN),
    }
    names = ("b_gate", "r_mag", "b_mag") if gated else ("b_enc",)
    tensors |= {name: rng.normal(size=D_SAE) * 0.3 for name in names}
    if threshold:
        tensors["threshold"] = np.abs(rng.normal(size=D_SAE)) * 0.5
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def inputs(seed=5, tokens=10):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(tokens, D_IN)) * 2 + 0.7).astype(np.float32)


def cfg_v6(architecture="standard", **changes):
    cfg = {
        "architecture": architecture,
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.54.12",
            "sae_lens_training_version": "6.54.12",
            "model_name": "tiny-model",
            "hook_name": "blocks.2.hook_resid_post",
        },
    }
    metadata = cfg["metadata"] | changes.pop("metadata", {})
    return cfg | changes | {"metadata": metadata}


def save_sae_lens(folder: Path, tensors, cfg) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


def relu(x):
    return np.maximum(x, 0)


def top_k(pre, k):
    """The k largest along the last axis, relu after the choice."""
    kept = np.zeros_like(pre)
    order = np.argsort(-pre, axis=-1, kind="stable")[..., :k]
    np.put_along_axis(kept, order, np.take_along_axis(pre, order, -1), -1)
    return relu(kept)

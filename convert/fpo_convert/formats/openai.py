"""OpenAI's sparse_autoencoder: one .pt file with pre_bias, encoder.weight, latent_bias."""

from pathlib import Path
from typing import Any

from fpo_convert.formats.hook_names import hook_from
from fpo_convert.formats.json_file import mapping
from fpo_convert.formats.keys import refuse_unknown
from fpo_convert.row_readers import Tensor, transposed
from fpo_convert.source_formula import Format, Options, Source, matrix_shape
from fpo_convert.torch_file import load_pt, tensors_of
from fpo_core.errors import SaeError

_NAMES = {
    "encoder.weight": "W_enc",
    "decoder.weight": "W_dec",
    "latent_bias": "b_enc",
    "pre_bias": "b_dec",
}
# The delta sites are what a sublayer adds; the post sites are the residual after it.
_SITES = {
    "resid_delta_attn": "attn_out",
    "resid_delta_mlp": "mlp_out",
    "resid_post_attn": "resid_mid",
    "resid_post_mlp": "resid_post",
}


_UNDERSTOOD = {*_NAMES, "activation", "activation_state_dict", "activation.k"}
_IGNORED = ("stats_last_nonzero",)


def detect(path: Path) -> bool:
    """Whether `path` is a .pt file with that layout."""
    if path.suffix != ".pt" or path.name == "ae.pt" or path.name.endswith(".sae.pt"):
        return False
    return {"pre_bias", "latent_bias", "encoder.weight"} <= set(load_pt(path))


def read(path: Path, options: Options) -> Source:
    """relu, or topk on layer-normalised inputs; pre_bias is subtracted after normalisation."""
    content = load_pt(path)
    refuse_unknown(path, content, _UNDERSTOOD, ignored=_IGNORED)
    architecture, k = _activation(path, content, options)
    tensors: dict[str, Tensor] = {
        _NAMES[name]: transposed(tensor) if name.endswith(".weight") else tensor
        for name, tensor in tensors_of(content).items()
        if name in _NAMES
    }
    d_in, d_sae = matrix_shape(path, tensors, "W_enc")
    if "W_dec" not in tensors:  # a tied decoder is not saved
        tensors["W_dec"] = tensors_of(content)["encoder.weight"]
    return Source(
        files=(path,),
        architecture=architecture,
        tensors=tensors,
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        transform="layer_norm" if architecture == "topk" else "none",
        subtract_b_dec=True,
        hook=hook_from(options.location, r"/(\d+)\.pt$", _SITES),
        model_name="gpt2" if "gpt2-small" in options.location else "",
    )


def _activation(path: Path, content: dict[str, Any], options: Options) -> tuple[str, int | None]:
    name = content.get("activation", "ReLU")
    if name == "ReLU":
        return "relu", None
    state = mapping(path, content, "activation_state_dict")
    post = state.get("postact_fn", "ReLU")
    if name != "TopK" or post != "ReLU":
        raise SaeError(
            f"{path} has activation {name!r} with {post!r}, expected ReLU, or TopK with ReLU: use "
            "such a checkpoint"
        )
    k = options.k or state.get("k", content.get("activation.k"))
    if type(k) is not int:
        raise SaeError(f"{path} does not state k: give k")
    return "topk", k


FORMAT = Format("openai", detect, read)

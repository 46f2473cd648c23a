"""Whether an autoencoder fits a model, by layer and width, from the model's configuration."""

from collections.abc import Mapping
from typing import Any

from fpo_core.errors import SaeError
from fpo_core.models.folder import ModelFolder, hidden_size
from fpo_core.models.lineage import doubt, model_names
from fpo_core.sae.hook import Hook
from fpo_core.sae.metadata import SaeMeta


def check_compatible(meta: SaeMeta, config: Mapping[str, Any], hook: Hook | None = None) -> Hook:
    """The hook to read, `hook` or else the file's, checked against a model's config.json mapping.

    Raises SaeError where no hook is known, the layer does not exist, or d_in is not the width of
    the activation there (hidden_size; for site z, heads times head_dim).
    """
    hook = hook or meta.hook
    if hook is None:
        raise SaeError(
            "the autoencoder does not say where it reads the model, expected a hook: set hook, for "
            "example to blocks.6.hook_resid_post"
        )
    # Multimodal checkpoints (Gemma 3) nest the language model's configuration.
    nested = config.get("text_config")
    config = nested if isinstance(nested, Mapping) else config
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers")
    if layers is not None and hook.layer >= layers:
        raise SaeError(
            f"the autoencoder reads {hook}, and the model has {layers} layers, numbered from 0: "
            "use an autoencoder of this model"
        )
    width, what = activation_width(config, hook)
    if width is not None and width != meta.d_in:
        raise SaeError(
            f"the autoencoder has d_in {meta.d_in} (for {meta.model_name or 'an unnamed model'}), "
            f"and the model's {what} at {hook} is {width}: use an autoencoder of this model"
        )
    return hook


def model_doubt(meta: SaeMeta, model: ModelFolder) -> str | None:
    """A sentence where the autoencoder seems to be of another model; None where it may be of this.

    Width and layer may fit a model by chance, whose activations then mean nothing to it.
    """
    reason = doubt(meta.model_name, model_names(model), model.config.get("model_type"))
    if reason is None:
        return None
    return (
        f"the autoencoder was trained on {meta.model_name}, and {reason}, on whose activations its "
        "features mean nothing: use an autoencoder of this model"
    )


def activation_width(config: Mapping[str, Any], hook: Hook) -> tuple[int | None, str]:
    """The width of the activation at a hook, None where config.json is silent, and its name."""
    hidden = hidden_size(config)
    if hook.site != "z":
        return hidden, "hidden size"
    heads, per_head = _first(config, "num_attention_heads", "n_head"), _first(config, "head_dim")
    if heads and per_head:
        return heads * per_head, "width of all heads"
    return hidden, "width of all heads"


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int), None)

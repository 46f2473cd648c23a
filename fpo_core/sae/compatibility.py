"""Does an autoencoder belong to a model? Checked against the model's configuration."""

from collections.abc import Mapping
from typing import Any

from fpo_core.errors import SaeError
from fpo_core.sae.hook import Hook
from fpo_core.sae.metadata import SaeMeta


def check_fit(meta: SaeMeta, config: Mapping[str, Any], hook: Hook | None = None) -> Hook:
    """The hook to tap, `hook` or else the file's own, once it fits a model's config.json mapping.

    Raises SaeError where no hook is known, the layer does not exist, or d_in differs from the
    width there (hidden_size; heads times head_dim for site z).
    """
    hook = hook or meta.hook
    if hook is None:
        raise SaeError(
            "the autoencoder does not say where it reads the model, expected a hook: give it with "
            "--hook, such as blocks.6.hook_resid_post"
        )
    nested = config.get("text_config")
    config = nested if isinstance(nested, Mapping) else config
    layers = _first(config, "num_hidden_layers", "n_layer", "num_layers")
    if layers is not None and hook.layer >= layers:
        raise SaeError(
            f"the autoencoder reads {hook}, and the model has {layers} layers, numbered from 0: "
            "use an autoencoder of this model"
        )
    width, what = _width(config, hook)
    if width is not None and width != meta.d_in:
        raise SaeError(
            f"the autoencoder has d_in {meta.d_in} (for {meta.model_name or 'an unnamed model'}), "
            f"and the model's {what} at {hook} is {width}: use an autoencoder of this model"
        )
    return hook


def _width(config: Mapping[str, Any], hook: Hook) -> tuple[int | None, str]:
    hidden = _first(config, "hidden_size", "n_embd", "d_model")
    if hook.site != "z":
        return hidden, "hidden size"
    heads, per_head = _first(config, "num_attention_heads", "n_head"), _first(config, "head_dim")
    if heads and per_head:
        return heads * per_head, "width of all heads"
    return hidden, "width of all heads"


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int), None)

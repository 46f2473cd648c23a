"""Loading mlx-lm's models and finding their blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm import utils

from fpo_core.config import ModelConfig
from fpo_core.errors import FpoError, ModelError
from fpo_core.models.attention import Attention, attention_of
from fpo_core.models.folder import ModelFolder, cannot_load, mlx_lm_settings
from fpo_core.models.layout import layout_of
from fpo_mlx.attention import adopt

Classes = Callable[..., tuple[type[nn.Module], type]]
"""config.json -> the classes of a model and of its arguments."""


@dataclass(frozen=True)
class Loaded:
    """A model of mlx-lm with what its configuration says."""

    model: nn.Module
    settings: dict[str, Any]
    """config.json as mlx-lm reads it."""
    attention: Attention | None
    """The windows and rotations that it was given; None for a family of mlx-lm alone."""


def load_model(
    folder: Path, config: ModelConfig, dtype: mx.Dtype, classes: Classes | None = None
) -> Loaded:
    """The model of a local folder, weights in `dtype`, with transformers' windows and rotations.

    Quantised weights keep the precision of their scales unless `dtype` is finer. `classes` stand in
    for the family's own.
    """
    try:
        with ModelFolder(folder, "").unchanged():
            model, settings = utils.load_model(
                folder,
                model_config=_top_level(folder),
                get_model_classes=classes or model_classes,
                trust_remote_code=config.trust_remote_code,
            )
    except FpoError:
        raise
    except SystemExit:  # mlx-lm's OLMo ends the process where a package of its own is absent
        raise ModelError(
            f"mlx-lm cannot load the model in {folder} without a package that is not installed, "
            "which it has named: install that, or use the torch backend"
        ) from None
    except Exception as error:  # whatever the classes of a family make of a damaged folder
        raise cannot_load("mlx-lm", folder, error) from None
    if "quantization" not in settings or dtype == mx.float32:
        model.set_dtype(dtype)
    attention = attention_of(folder, trust_remote_code=config.trust_remote_code)
    if attention is not None:
        adopt(find_blocks(model)[1], attention)
    return Loaded(model, settings, attention)


def model_classes(config: dict[str, Any]) -> tuple[type[nn.Module], type]:
    """mlx-lm's classes; GPT-2's also for checkpoints of the whole model.

    The hub's gpt2 is the body alone, and mlx-lm knows no other; transformers saves
    `transformer.h.0…`, whose prefix is dropped before mlx-lm sees the names.
    """
    model_class, args_class = utils._get_classes(config)
    layout = layout_of(config.get("model_type", ""))
    prefix = layout.peft.removesuffix(layout.stored[0])
    if prefix in ("", layout.peft):
        return model_class, args_class

    class WholeModel(model_class):
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            return super().sanitize({n.removeprefix(prefix): w for n, w in weights.items()})

    return WholeModel, args_class


def _top_level(folder: Path) -> dict[str, Any]:
    """Settings that mlx-lm looks for at the top level."""
    return mlx_lm_settings(ModelFolder(folder, "").settings)


def find_blocks(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Path and list of the transformer blocks, such as `model.layers`.

    The list itself, not a property's copy, so blocks can be replaced. Raises ModelError where
    there is none.
    """
    # Found by their number, for families name the list differently (layers, h).
    count = len(model.layers)  # pyright: ignore[reportArgumentType]
    for path, module in [("", model), *model.named_modules()]:
        for name, value in module.items():
            is_stack = isinstance(value, list) and len(value) == count
            if is_stack and all(isinstance(block, nn.Module) for block in value):
                return f"{path}.{name}".lstrip("."), value
    raise ModelError(
        f"no stack of {count} blocks was found in this {type(model).__module__}: expected a model "
        "with a standard list of transformer blocks"
    )


def body_of(model: nn.Module, stack_path: str) -> nn.Module:
    """The part that holds the blocks and the final norm, below the head; ModelError for none."""
    parent = stack_path.rpartition(".")[0]
    if not parent:
        raise ModelError(
            f"the blocks of this {type(model).__module__} are children of the module with "
            "the head: expected a model whose body is a module of its own"
        )
    return dict(model.named_modules())[parent]


def check_states(states: mx.array, width: int) -> mx.array:
    """What a body returns, (…, width); ModelError where that is no state that a head could read."""
    if states.shape[-1] == width:
        return states
    raise ModelError(
        f"mlx-lm keeps the output layer of this model in its body, which gives {states.shape[-1]} "
        f"numbers for the {width} of a state, so no other head can read it: use the torch backend"
    )


def final_norm(body: nn.Module) -> Any:
    """The norm behind the blocks of a body; None where it has none."""
    modules: list[Any] = [child for child in body.values() if isinstance(child, nn.Module)]
    norms = [child for child in modules if "weight" in child and child.weight.ndim == 1]
    return norms[-1] if norms else None


def hidden_size(block: nn.Module) -> int:
    """Width of the residual stream, from the block's first norm."""
    for name in ("input_layernorm", "ln_1", "post_attention_layernorm"):  # olmo2 has no first
        if name in block:
            return block[name].weight.shape[0]
    raise ModelError(
        f"the blocks of this {type(block).__module__} have no input norm: expected a standard block"
    )

"""Loading mlx-lm's models and finding their blocks."""

from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm import utils

from fpo_core.config import ModelConfig
from fpo_core.errors import FpoError, ModelError
from fpo_core.models.folder import ModelFolder, cannot_load, mlx_lm_settings


def load_model(
    folder: Path, config: ModelConfig, dtype: mx.Dtype
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a local folder and its configuration; the weights in `dtype`.

    Quantised weights keep the precision of their scales unless `dtype` is finer.
    """
    try:
        model, settings = utils.load_model(
            folder, model_config=_top_level(folder), trust_remote_code=config.trust_remote_code
        )
    except FpoError:
        raise
    except Exception as error:  # whatever the classes of a family make of a damaged folder
        raise cannot_load("mlx-lm", folder, error) from None
    if "quantization" not in settings or dtype == mx.float32:
        model.set_dtype(dtype)
    return model, settings


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


def hidden_size(block: nn.Module) -> int:
    """Width of the residual stream, from the block's first norm."""
    for name in ("input_layernorm", "ln_1", "post_attention_layernorm"):  # olmo2 has no first
        if name in block:
            return block[name].weight.shape[0]
    raise ModelError(
        f"the blocks of this {type(block).__module__} have no input norm: expected a standard block"
    )

"""Loading transformers' causal language models and finding their blocks."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from fpo_core.config import ModelConfig
from fpo_core.errors import FpoError, ModelError
from fpo_core.models.folder import ModelFolder, cannot_load
from fpo_core.models.layout import layout_of


def load_model(
    folder: Path, config: ModelConfig, dtype: torch.dtype, kind: Any = AutoModelForCausalLM
) -> PreTrainedModel:
    """The model of a local folder, from safetensors alone, with every dropout of its own off."""
    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
        _switch_dropout_off(settings)
        _check_quantisation(folder, settings)
        with ModelFolder(folder, "").unchanged():
            loaded: Any = kind.from_pretrained(
                folder,
                config=settings,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=config.trust_remote_code,
                output_loading_info=True,
            )
    except FpoError:
        raise
    except Exception as error:  # whatever the classes of a family make of a damaged folder
        raise cannot_load("transformers", folder, error) from None
    model, report = loaded
    # transformers fills these at random, with a warning that nobody reads.
    if report["missing_keys"]:
        raise ModelError(
            f"the model in {folder} lacks the weight {min(report['missing_keys'])!r}: download or "
            "save the model again"
        )
    return model


def empty_model(folder: Path, config: ModelConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The same model without memory for its weights; ModelError where it is quantised."""
    try:
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
        _switch_dropout_off(settings)
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                settings, dtype=dtype, trust_remote_code=config.trust_remote_code
            )
    except Exception as error:
        raise cannot_load("transformers", folder, error) from None
    if quantisation_of(model) is not None or getattr(settings, "quantization", None):
        raise ModelError(
            f"the model in {folder} is quantised, which shard does not split: use the unquantised "
            "model, or leave shard out"
        )
    return model


def placed(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The model on a device, in memory of its own.

    On the CPU its weights are views of the mapped file otherwise: were that cut short under a run,
    the system would end the process.
    """
    model.to(device)  # pyright: ignore[reportArgumentType]
    if device.type == "cpu":
        for weight in (*model.parameters(), *model.buffers()):
            weight.data = weight.data.clone()
    return model


def _check_quantisation(folder: Path, settings: Any) -> None:
    if getattr(settings, "quantization", None):
        raise ModelError(
            f"the model in {folder} is quantised for MLX, which transformers cannot load: use "
            "the mlx backend, or the unquantised model"
        )


def _switch_dropout_off(settings: Any) -> None:
    """The adapters' dropout is a setting of ours; the model's own would be one that nobody set."""
    for name, value in settings.to_dict().items():
        if ("dropout" in name or "pdrop" in name) and isinstance(value, float):
            setattr(settings, name, 0.0)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model in the layout that mlx-lm opens too."""
    # Of families such as GPT-2 the hub stores the body alone, and mlx-lm reads only that.
    body: Any = model.base_model
    tied = model.config.get_text_config().tie_word_embeddings
    body_alone = tied and find_blocks(body)[0] in layout_of(model.config.model_type).stored
    (body if body_alone else model).save_pretrained(folder)


def save_configuration(model: PreTrainedModel, folder: Path) -> None:
    """Write what `save_model` does, without the weights."""
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def quantisation_of(model: PreTrainedModel) -> str | None:
    """How the loaded weights are quantised; None where they are not."""
    settings = getattr(model.config, "quantization_config", None)
    return None if settings is None else str(settings)


def find_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Path and list of the blocks, such as `model.layers`; ModelError where there is none."""
    count = model.config.get_text_config().num_hidden_layers  # pyright: ignore
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return path, module
    raise ModelError(
        f"no stack of {count} blocks was found in this {type(model).__name__}: "
        "expected a model with a standard list of transformer blocks"
    )


def final_norm(model: nn.Module, stack_path: str) -> nn.Module | None:
    """The norm behind the blocks at `stack_path`; None where the model has none."""
    body = model.get_submodule(stack_path.rpartition(".")[0])
    norms = [child for child in body.children() if _is_norm(child)]
    return norms[-1] if norms else None


def _is_norm(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 1

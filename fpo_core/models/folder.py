"""A model on disk: located or downloaded, described by its config.json, fingerprinted."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fpo_core.config import ModelConfig
from fpo_core.errors import ModelError, shorten
from fpo_core.io.atomic import write_json
from fpo_core.io.digests import is_plain_name, sampled_sha256
from fpo_core.io.file_array import version_of
from fpo_core.io.reader import SafetensorsFile, open_safetensors
from fpo_core.io.regular import read_json_object
from fpo_core.models.layout import Layout, layout_of

_DOWNLOADED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken", "README.md"]
INDEX_FILE = "model.safetensors.index.json"
_TOKENIZER = ("*token*", "*.jinja", "*.model", "vocab*", "merges*")
_COMPANIONS = (*_TOKENIZER, "generation_config.json", "*.py", "LICENSE*", "LICENCE*", "NOTICE*")
"""The files of a model besides its weights and config.json."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder with config.json and safetensors weights."""

    path: Path
    name: str
    """What the user called it: a folder or a hub name."""

    @classmethod
    def locate(cls, config: ModelConfig, *, weights: bool = True) -> "ModelFolder":
        """The local folder, or the hub's snapshot of safetensors and configuration files.

        Without `weights`, config.json is enough. Raises ModelError, in one sentence, where there is
        none, or no safetensors.
        """
        path = Path(config.model).expanduser()
        patterns = _DOWNLOADED if weights else ["config.json"]
        folder = cls(path if path.is_dir() else _download(config, patterns), config.model)
        if not (folder.path / "config.json").is_file():
            raise ModelError(f"{config.model} holds no config.json: give the folder of a model")
        if weights:
            folder.check_weights()
        return folder

    def check_weights(self) -> None:
        """Raise ModelError unless there are weights in regular safetensors files.

        The frameworks' own readers fail in many ways on others, and wait for ever on a FIFO.
        """
        if not self.weight_files:
            raise ModelError(
                f"{self.name} holds no safetensors weights: convert them to safetensors first"
            )
        stored = {name for path in self.weight_files for name in _header(path).entries}
        absent = sorted({*self._weight_map} - stored)
        if absent:
            raise ModelError(
                f"{self.path / INDEX_FILE} names {absent[0]!r}, which no file of the model holds: "
                "download or save the model again"
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json; the text settings of a multimodal model take precedence."""
        return self.settings | self.settings.get("text_config", {})

    @cached_property
    def settings(self) -> dict[str, Any]:
        """config.json as it stands. Raises ModelError where it is damaged."""
        settings = read_json_object(self.path / "config.json", damaged)
        nested = settings.get("text_config", {})
        if not isinstance(nested, dict):
            raise damaged(f"{self.path / 'config.json'} has a text_config that is no object")
        return settings

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files of the weights, without those of adapters in the same folder."""
        # The index decides: some folders hold the weights twice, in another layout too.
        if self._weight_map:
            return [self.path / name for name in sorted({*self._weight_map.values()})]
        files = sorted(self.path.glob("*.safetensors"))
        return [path for path in files if not path.name.startswith("adapter")]

    @property
    def _weight_map(self) -> dict[str, str]:
        """The file of each weight, by the index; empty where there is none."""
        path = self.path / INDEX_FILE
        if not path.exists():
            return {}
        names = read_json_object(path, damaged).get("weight_map")
        if not isinstance(names, dict) or not names or not all(map(is_plain_name, names.values())):
            raise damaged(f"{path} has no weight_map from weights to files of its folder")
        return names

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Raise ModelError where the weights' files are others after the body, which reads them."""
        before = [version_of(path.stat()) for path in self.weight_files]
        yield
        if [version_of(path.stat()) for path in self.weight_files] != before:
            raise ModelError(f"{self.path} was changed while its weights were read: start again")

    @property
    def layers(self) -> int:
        """The number of blocks."""
        for name in ("num_hidden_layers", "n_layer", "num_layers"):  # the last is GPT-Neo's
            if isinstance(self.config.get(name), int):
                return self.config[name]
        raise ModelError(
            f"{self.path / 'config.json'} does not say num_hidden_layers: give the folder of a "
            "language model"
        )

    @property
    def width(self) -> int | None:
        """The hidden size; None where config.json is silent."""
        return hidden_size(self.config)

    @property
    def positions(self) -> int | None:
        """The longest sequence that the model was made for, in tokens; None where it is silent."""
        for name in ("max_position_embeddings", "n_positions"):
            if isinstance(self.config.get(name), int):
                return self.config[name]
        return None

    @property
    def quantisation(self) -> dict[str, Any] | None:
        """How the weights are quantised, as config.json says; None where they are not."""
        return self.config.get("quantization") or self.config.get("quantization_config")

    @property
    def layout(self) -> Layout:
        """Paths of the blocks in transformers' model, mlx-lm's and checkpoints."""
        return layout_of(self.settings.get("model_type", ""))

    def copy_companions(self, folder: Path) -> None:
        """Copy tokenizer, chat template, generation settings, code and licence to a folder."""
        for pattern in _COMPANIONS:
            for file in self.path.glob(pattern):
                shutil.copy2(file, folder / file.name)

    def fingerprint(self) -> str:
        """SHA-256 that changes with the configuration or the weights."""
        return sampled_sha256([self.path / "config.json", *self.weight_files])


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """The hidden size that a config.json says, by any of its names; None where it is silent."""
    sizes = (config.get(name) for name in ("hidden_size", "n_embd", "d_model"))
    return next((size for size in sizes if type(size) is int), None)


def _header(path: Path) -> SafetensorsFile:
    return open_safetensors(path, damaged)


def damaged(text: str) -> ModelError:
    """The error for a file of a model, by what is wrong with it."""
    return ModelError(f"{text}: download or save the model again")


def cannot_load(library: str, folder: Path, error: Exception) -> ModelError:
    """The error for a model that a library does not open, in the library's own words."""
    words = str(error).lower()
    if "model type" in words and ("not supported" in words or "does not recognize" in words):
        kind = ModelFolder(folder, "").config.get("model_type")
        return ModelError(
            f"{library} does not support the model_type {kind!r} of {folder}: update {library}, or "
            "take a model of another family"
        )
    return ModelError(f"{library} cannot load the model in {folder}: {shorten(error)}")


def check_quantised(fine_tune_type: str, quantised: bool) -> None:
    """Raise ModelError where quantised weights themselves would be trained."""
    if quantised and fine_tune_type == "full":
        raise ModelError(
            "fine_tune_type is full, but the model's weights are quantised and have no gradient: "
            "train lora or dora on them, or take the unquantised model"
        )


def mlx_lm_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Keys that mlx-lm reads at the top level of a config.json, where transformers 5 has none.

    Only keys that the settings lack are returned.
    """
    # Without them mlx-lm's llama, qwen2, gemma2 and gemma3 silently use default rope bases, and its
    # gpt_neox and gpt2 do not load.
    ropes = settings.get("rope_parameters") or {}
    rope = ropes.get("full_attention", ropes)
    base, share = rope.get("rope_theta"), rope.get("partial_rotary_factor")
    kind = rope.get("rope_type", "default")
    keys = {
        "rope_theta": base,
        "rope_local_base_freq": ropes.get("sliding_attention", {}).get("rope_theta"),
        "rotary_emb_base": base,
        "rotary_pct": share,
        "partial_rotary_factor": share,
        # Not of several kinds of block: transformers would give every block this one.
        "rope_scaling": rope | {"type": kind} if rope is ropes and kind != "default" else None,
        "n_ctx": settings.get("n_positions"),
        "num_experts": settings.get("num_local_experts"),
    }
    return {k: v for k, v in keys.items() if v is not None and k not in settings}


def flatten_rope(path: Path) -> None:
    """Add the keys of `mlx_lm_settings` to a config.json."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    if keys := mlx_lm_settings(settings):
        write_json(path, settings | keys)


def _download(config: ModelConfig, patterns: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    from fpo_core.io.hub import advice

    name = config.model
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        tried = Path(name).expanduser().absolute()
        raise ModelError(f"model is {name!r}, but there is no folder {tried}: check the path")
    try:
        return Path(snapshot_download(name, revision=config.revision, allow_patterns=patterns))
    except errors.HFValidationError:
        reason = f"{name!r} is neither a folder nor a hub name such as user/model: check it"
    except OSError as error:
        reason = advice(name, error) or f"{name} cannot be downloaded ({error}): check the disk"
    raise ModelError(reason)

"""A model on disk: found or downloaded, described by its configuration, and fingerprinted."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fpo_core.config import ModelConfig
from fpo_core.errors import ModelError
from fpo_core.files import sampled_sha256, write_json
from fpo_core.layout import Layout, keys_of_mlx, layout_of

_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


@dataclass(frozen=True)
class ModelFolder:
    """A folder with config.json and safetensors weights."""

    path: Path
    name: str
    """What the user called it: a folder or a hub name."""

    @classmethod
    def locate(cls, config: ModelConfig) -> "ModelFolder":
        """The local folder, or the hub's snapshot of safetensors and configuration files.

        Raises ModelError, in one sentence, where there is none, or it holds no safetensors.
        """
        path = Path(config.model).expanduser()
        folder = cls(path if path.is_dir() else _download(config), config.model)
        if not (folder.path / "config.json").is_file():
            raise ModelError(f"{config.model} holds no config.json: give the folder of a model")
        if not folder.weight_files:
            raise ModelError(
                f"{config.model} holds no safetensors weights: convert them to safetensors first"
            )
        return folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json, with a multimodal model's text part on top."""
        try:
            settings = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{self.path / 'config.json'} is not JSON: {error}") from None
        return settings | settings.get("text_config", {})

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files of the weights; adapters lying beside them are not."""
        return [p for p in self.path.glob("*.safetensors") if not p.name.startswith("adapter")]

    @property
    def layers(self) -> int:
        """How many blocks."""
        for name in ("num_hidden_layers", "n_layer"):
            if isinstance(self.config.get(name), int):
                return self.config[name]
        raise ModelError(
            f"{self.path / 'config.json'} does not say num_hidden_layers: give the folder of a "
            "language model"
        )

    @property
    def layout(self) -> Layout:
        """Where the blocks sit in either library's model."""
        return layout_of(self.config.get("model_type", ""))

    def fingerprint(self) -> str:
        """SHA-256 that changes with the configuration or the weights."""
        return sampled_sha256([self.path / "config.json", *self.weight_files])


def complete_config(path: Path) -> None:
    """Add to a config.json what mlx-lm looks for at its top level."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    missing = keys_of_mlx(settings)
    if missing:
        write_json(path, settings | missing)


def _download(config: ModelConfig) -> Path:
    from huggingface_hub import errors, snapshot_download

    name = config.model
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelError(f"there is no folder {name}: check the path")
    try:
        return Path(snapshot_download(name, revision=config.revision, allow_patterns=_WANTED))
    except errors.GatedRepoError:
        reason = f"{name} is gated: accept its licence on the hub, then run `hf auth login`"
    except errors.RevisionNotFoundError:
        reason = f"{name} has no revision {config.revision!r} on the hub: check --revision"
    except errors.RepositoryNotFoundError:
        reason = f"{name} is neither a folder nor on the hub: check the name, or `hf auth login`"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError):
        reason = f"{name} is no folder, and the hub cannot be reached: check the path or network"
    except errors.HFValidationError:
        reason = f"{name!r} is neither a folder nor a hub name such as user/model: check it"
    raise ModelError(reason)

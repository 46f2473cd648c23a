"""transformers' configuration of a folder, as windows and rotary frequencies are read from it."""

import json
from pathlib import Path

import pytest

from fpo_core.errors import ModelError
from fpo_core.models.attention import attention_of


def folder_with(path: Path, **config: object) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("damage", [{"bos_token_id": {}}, {"eos_token_id": "../x"}])
def test_a_damaged_configuration_is_refused(damage: dict[str, object], tmp_path: Path) -> None:
    """Where it was passed over, MLX trained without the windows that it holds."""
    folder = folder_with(tmp_path, model_type="mistral", sliding_window=8, **damage)
    with pytest.raises(ModelError, match=r"transformers cannot load the model in .*token_id"):
        attention_of(folder)


def test_a_family_that_transformers_does_not_know_has_none(tmp_path: Path) -> None:
    assert attention_of(folder_with(tmp_path, model_type="of_mlx_lm_alone")) is None

"""An adapter of ours tells any change of itself; those of others are read as they are."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fpo_core.adapters.integrity import KEY
from fpo_core.adapters.lora import Adapter
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.writer import CONFIG_FILE, MLX_FILE, PEFT_FILE, save_adapter
from fpo_core.errors import ModelError
from fpo_core.models.layout import Layout


def weights():
    chance = np.random.default_rng(0)
    shapes = {"A": (2, 8), "B": (8, 2)}
    return {
        f"{block}.self_attn.q_proj.lora_{side}": chance.normal(size=shape).astype(np.float32)
        for block in (0, 1)
        for side, shape in shapes.items()
    }


@pytest.fixture
def folder(tmp_path):
    save_adapter(tmp_path, Adapter(2, 1.5, 0.0, 2, weights()), base_model="m", layout=Layout())
    return tmp_path


def edit(folder, change):
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_what_was_written_is_read(folder):
    found = load_adapter(folder)
    assert (found.rank, found.scale) == (2, 1.5)
    assert all((found.weights[name] == array).all() for name, array in weights().items())


@pytest.mark.parametrize("at", [9, 200, -1, -40])
def test_a_flipped_bit_of_the_weights_is_refused(folder, at):
    path = folder / PEFT_FILE
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, 1))
    with pytest.raises(ModelError, match=f"{PEFT_FILE} is not what was written"):
        load_adapter(folder)


def test_the_copy_that_is_not_read_may_be_damaged_or_gone(folder):
    (folder / MLX_FILE).write_bytes(b"x")
    load_adapter(folder)
    (folder / MLX_FILE).unlink()
    load_adapter(folder)
    (folder / MLX_FILE).write_bytes(b"x")
    (folder / PEFT_FILE).unlink()
    with pytest.raises(ModelError, match=f"{MLX_FILE} has 1 bytes"):
        load_adapter(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c | {"r": 3},
        lambda c: c | {"lora_alpha": 4},
        lambda c: c | {"lora_parameters": c["lora_parameters"] | {"scale": 2.5}},
        lambda c: c | {"num_layers": 1},
        lambda c: c | {"use_rslora": True},
        lambda c: {k: v for k, v in c.items() if k != "use_dora"},
        lambda c: c | {KEY: {}},
        lambda c: c | {KEY: None},
        lambda c: c | {KEY: {"settings": c[KEY]["settings"]}},
        lambda c: c | {KEY: c[KEY] | {"files": {PEFT_FILE: {}}}},
    ],
)
def test_a_changed_setting_is_refused(folder, change):
    edit(folder, change)
    with pytest.raises(ModelError, match=r"not what was written|no size and SHA-256"):
        load_adapter(folder)


def test_where_the_base_is_may_be_edited(folder):
    edit(folder, lambda c: c | {"base_model_name_or_path": "org/name", "model": "org/name"})
    load_adapter(folder)


def test_an_adapter_without_hashes_is_read(folder):
    edit(folder, lambda c: {k: v for k, v in c.items() if k != KEY})
    arrays = load_file(folder / PEFT_FILE)
    save_file({name: array * 2 for name, array in arrays.items()}, folder / PEFT_FILE)
    found = load_adapter(folder)
    assert all((found.weights[name] == 2 * array).all() for name, array in weights().items())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(folder, number):
    edit(folder, lambda c: {k: v for k, v in c.items() if k != KEY})
    arrays = load_file(folder / PEFT_FILE)
    next(iter(arrays.values()))[0, 0] = number
    save_file(arrays, folder / PEFT_FILE)
    with pytest.raises(ModelError, match="not finite"):
        load_adapter(folder)


def test_peft_ignores_the_hashes(folder):
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(folder)
    assert config.r == 2
    assert config.lora_alpha == 3

"""LoRA without a framework: selection, starting weights, and the folder both libraries open."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fpo_core.adapters import (
    MLX_FILE,
    PEFT_FILE,
    Adapter,
    check_shapes,
    initial_lora,
    load_adapter,
    save_adapter,
    select_blocks,
    select_targets,
)
from fpo_core.errors import ModelError

LINEAR = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.proj"]


def adapter(rank=2, blocks=(1, 2)):
    generator = np.random.default_rng(0)
    weights = {}
    for block in blocks:
        for module, (rows, columns) in {"self_attn.q_proj": (6, 4), "mlp.up_proj": (8, 4)}.items():
            name = f"{block}.{module}.lora_"
            weights[name + "A"] = generator.normal(size=(rank, columns)).astype(np.float32)
            weights[name + "B"] = generator.normal(size=(rows, rank)).astype(np.float32)
    return Adapter(rank=rank, scale=2.5, dropout=0.1, num_layers=len(blocks), weights=weights)


def save(folder, given, prefix="model.layers"):
    save_adapter(folder, given, base_model="base", peft_prefix=prefix, mlx_prefix="model.layers")


def assert_same(found, expected):
    assert (found.rank, found.scale, found.num_layers) == (
        expected.rank,
        expected.scale,
        expected.num_layers,
    )
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        assert found.weights[name].dtype == np.float32
        assert (found.weights[name] == weight).all(), name


@pytest.mark.parametrize("without", [None, PEFT_FILE, MLX_FILE])
def test_round_trip_from_either_file(tmp_path, without):
    given = adapter()
    save(tmp_path, given, prefix="transformer.h")
    if without:
        (tmp_path / without).unlink()
    found = load_adapter(tmp_path)
    assert_same(found, given)
    assert found.dropout == 0.1
    assert found.blocks() == [1, 2]
    assert found.modules() == ["mlp.up_proj", "self_attn.q_proj"]


def test_both_files_hold_what_their_library_wants(tmp_path):
    given = adapter()
    save(tmp_path, given)
    peft, mlx = load_file(tmp_path / PEFT_FILE), load_file(tmp_path / MLX_FILE)
    a = given.weights["1.self_attn.q_proj.lora_A"]
    key = "model.layers.1.self_attn.q_proj.lora_"
    assert (peft[f"base_model.model.{key}A.weight"] == a).all()
    assert (mlx[key + "a"] == a.T).all()
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["lora_alpha"] / config["r"] == config["lora_parameters"]["scale"] == 2.5
    assert config["layers_to_transform"] == [1, 2]
    assert config["num_layers"] == 2


def test_an_adapter_of_peft_alone(tmp_path):
    given = adapter()
    save(tmp_path, given)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = load_adapter(tmp_path)
    assert (found.rank, found.scale, found.dropout, found.num_layers) == (4, 4.0, 0.0, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "sets use_dora"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"peft_type": "IA3"}, "neither a PEFT nor an mlx-lm LoRA adapter"),
    ],
)
def test_adapters_of_other_kinds_are_refused(tmp_path, change, said):
    save(tmp_path, adapter())
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4} | change
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=said):
        load_adapter(tmp_path)


def test_incomplete_or_foreign_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        load_adapter(tmp_path)
    save(tmp_path, adapter())
    save_file({"model.embed.weight": np.ones(2, np.float32)}, tmp_path / PEFT_FILE)
    with pytest.raises(ModelError, match=r"'model\.embed\.weight', which is not a LoRA weight"):
        load_adapter(tmp_path)
    (tmp_path / PEFT_FILE).unlink()
    (tmp_path / MLX_FILE).unlink()
    with pytest.raises(ModelError, match="the adapter is incomplete"):
        load_adapter(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"lora_parameters": {"scale": 2}}', '{"peft_type": "LORA"}']
)
def test_a_damaged_configuration_is_refused(tmp_path, text):
    save(tmp_path, adapter())
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        load_adapter(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    save(tmp_path, adapter())
    (tmp_path / PEFT_FILE).write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        load_adapter(tmp_path)


def test_blocks_are_counted_from_the_end():
    assert select_blocks(4, -1) == [0, 1, 2, 3]
    assert select_blocks(4, 1) == [3]
    assert select_blocks(4, 4) == [0, 1, 2, 3]
    with pytest.raises(ModelError, match="num_layers is 5 but the model has 4 blocks"):
        select_blocks(4, 5)


@pytest.mark.parametrize(
    ("targets", "selected"),
    [
        (None, LINEAR),
        (("q_proj",), ["self_attn.q_proj"]),
        (("proj",), ["mlp.proj"]),  # a whole name, not the end of one
        (("self_attn.o_proj", "up_proj"), ["self_attn.o_proj", "mlp.up_proj"]),
    ],
)
def test_targets_name_whole_modules(targets, selected):
    assert select_targets(LINEAR, targets) == selected


def test_a_target_that_fits_nothing_is_refused():
    with pytest.raises(ModelError, match=r"names 'k_proj', but the linear layers.*mlp\.up_proj"):
        select_targets(LINEAR, ("q_proj", "k_proj"))


def test_starting_weights_depend_on_seed_and_name_alone():
    first = initial_lora("0.q.lora_A", (4, 100), 7)
    assert (first == initial_lora("0.q.lora_A", (4, 100), 7)).all()
    assert (first != initial_lora("0.q.lora_A", (4, 100), 8)).any()
    assert (first != initial_lora("1.q.lora_A", (4, 100), 7)).any()
    assert np.abs(first).max() <= 0.1  # 1/√100
    assert first.std() == pytest.approx(0.1 / 3**0.5, rel=0.1)
    assert (initial_lora("0.q.lora_B", (100, 4), 7) == 0).all()


def test_weights_that_do_not_fit_are_named():
    expected = {"a": (2, 3), "b": (1,)}
    with pytest.raises(ModelError, match=r"1 are missing \(such as b\), 1 are not .*such as c"):
        check_shapes({"a": np.ones((2, 3)), "c": np.ones(1)}, expected)
    with pytest.raises(ModelError, match=r"weight a has shape \(3, 2\), expected \(2, 3\)"):
        check_shapes({"a": np.ones((3, 2)), "b": np.ones(1)}, expected)
    check_shapes({"a": np.ones((2, 3)), "b": np.ones(1)}, expected)

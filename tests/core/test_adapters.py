"""LoRA without a framework: selection, starting weights, and the folder both libraries open."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fpo_core.adapters.lora import (
    Adapter,
    check_shapes,
    common_shape,
    initial_lora,
    initial_weights,
    select_blocks,
    select_targets,
)
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.writer import MLX_FILE, PEFT_FILE, save_adapter
from fpo_core.errors import ModelError
from fpo_core.models.layout import Layout

LINEAR = ["self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.proj"]


def adapter(rank=2, blocks=(1, 2), *, dora=False):
    generator = np.random.default_rng(0)
    weights = {}
    for block in blocks:
        for module, (rows, columns) in {"self_attn.q_proj": (6, 4), "mlp.up_proj": (8, 4)}.items():
            name = f"{block}.{module}.lora_"
            weights[name + "A"] = generator.normal(size=(rank, columns)).astype(np.float32)
            weights[name + "B"] = generator.normal(size=(rows, rank)).astype(np.float32)
            if dora:
                magnitude = generator.uniform(1, 2, rows).astype(np.float32)
                weights[name + "magnitude_vector"] = magnitude
    return Adapter(rank=rank, scale=2.5, dropout=0.1, num_layers=len(blocks), weights=weights)


def save(folder, given, prefix="model.layers"):
    save_adapter(folder, given, base_model="base", layout=Layout(peft=prefix))


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


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("without", [None, PEFT_FILE, MLX_FILE])
def test_round_trip_from_either_file(tmp_path, without, dora):
    given = adapter(dora=dora)
    save(tmp_path, given, prefix="transformer.h")
    if without:
        (tmp_path / without).unlink()
    found = load_adapter(tmp_path)
    assert_same(found, given)
    assert found.dropout == 0.1
    assert found.fine_tune_type == ("dora" if dora else "lora")
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


def as_peft(folder, given, **settings):
    """Save an adapter as PEFT alone would, under settings of its own."""
    save(folder, given)
    (folder / MLX_FILE).unlink()
    config = {"peft_type": "LORA", "r": given.rank, "lora_alpha": 8} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))


def products(given):
    """scale · B A by module: what an adapter adds."""
    weights = given.weights
    return {
        place: given.scale * weights[place + ".lora_B"] @ weights[place + ".lora_A"]
        for place in given.places()
    }


@pytest.mark.parametrize(("rooted", "scale"), [(False, 2.0), (True, 4.0)])  # 8/4, 8/√4
def test_an_adapter_of_peft_alone(tmp_path, rooted, scale):
    as_peft(tmp_path, adapter(rank=4), use_rslora=rooted)
    found = load_adapter(tmp_path)
    assert (found.rank, found.scale, found.dropout, found.num_layers) == (4, scale, 0.0, -1)
    assert load_adapter(tmp_path, layers=5).num_layers == 4  # blocks 1 and 2 are among the last 4
    with pytest.raises(ModelError, match="adapts block 2, but the model has 2 blocks"):
        load_adapter(tmp_path, layers=2)


def test_ranks_and_strengths_per_module_become_one(tmp_path):
    given = adapter(rank=4)
    for name in [name for name in given.weights if "1.mlp" in name]:  # rank 2 there
        cut = given.weights[name]
        given.weights[name] = cut[:2] if name.endswith("A") else cut[:, :2]
    patterns = {
        "rank_pattern": {"layers.1.mlp.up_proj": 2},
        "alpha_pattern": {r"model\.layers\.1\..*_proj": 16, "q_proj": 2},
    }
    as_peft(tmp_path, given, **patterns)
    found = load_adapter(tmp_path)
    assert (found.rank, found.scale) == (4, 2.0)  # that of 2.mlp.up_proj, which no pattern names
    # the first pattern that fits counts: 16 in block 1, 2 for the other q_proj
    scales = {"1.mlp.up_proj": 8, "1.self_attn.q_proj": 4, "2.self_attn.q_proj": 0.5}
    for place, product in products(found).items():
        a, b = (given.weights[f"{place}.lora_{letter}"] for letter in "AB")
        np.testing.assert_allclose(product, scales.get(place, 2.0) * b @ a, rtol=1e-6, atol=1e-7)


def test_an_irregular_adapter_names_every_module_to_peft(tmp_path):
    given = adapter()
    weights = {n: w for n, w in given.weights.items() if not n.startswith("1.mlp")}
    save(tmp_path, dataclasses.replace(given, weights=weights))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["layers_to_transform"] is None
    assert config["target_modules"] == [
        f"model.layers.{place}" for place in ("1.self_attn.q_proj", "2.mlp.up_proj")
    ] + ["model.layers.2.self_attn.q_proj"]
    assert load_adapter(tmp_path).places() == [
        *("1.self_attn.q_proj", "2.mlp.up_proj", "2.self_attn.q_proj")
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"bias": "lora_only"}, "sets bias to 'lora_only'"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"layer_replication": [[0, 2]]}, "sets layer_replication"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changed the base"),
        ({"peft_type": "IA3"}, "sets peft_type to 'IA3'"),
        ({"lora_parameters": {"rank": 2, "scale": 1}, "fine_tune_type": "full"}, "to 'full'"),
        ({"r": 3}, "rank 2, but adapter_config.json says 3"),
        ({"lora_alpha": 0}, "is damaged"),
    ],
)
def test_adapters_of_other_kinds_are_refused(tmp_path, change, said):
    as_peft(tmp_path, adapter(), **change)
    with pytest.raises(ModelError, match=said):
        load_adapter(tmp_path)


def test_incomplete_or_foreign_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        load_adapter(tmp_path)
    save(tmp_path, adapter())
    (tmp_path / PEFT_FILE).unlink()
    (tmp_path / MLX_FILE).unlink()
    with pytest.raises(ModelError, match="the adapter is incomplete"):
        load_adapter(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="a pickle, and none is read"):
        load_adapter(tmp_path)


BLOCK = "base_model.model.model.layers.1.q_proj."


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"base_model.model.lm_head.lora_A.weight": (2, 4)}, r"'base_model\.model\.lm_head\.lora"),
        ({"model.embed_tokens.lora_a": (2, 4)}, r"'model\.embed_tokens\.lora_a', which is no LoRA"),
        ({BLOCK + "lora_A.weight": (2, 4)}, "has no lora_B of 1.q_proj"),
        (
            {BLOCK + "lora_A.weight": (2, 4), BLOCK + "lora_B.weight": (6, 3)},
            r"\(2, 4\) and B of shape \(6, 3\) at 1\.q_proj",
        ),
        (
            {
                BLOCK + "lora_A.weight": (2, 4),
                BLOCK + "lora_B.weight": (6, 2),
                BLOCK + "lora_magnitude_vector": (4,),
            },
            "at 1.q_proj",
        ),
        (
            {
                path + f".0.q_proj.lora_{letter}.weight": shape
                for path in ("model.layers", "vision_tower.layers")
                for letter, shape in (("A", (2, 4)), ("B", (6, 2)))
            },
            "adapts model.layers and vision_tower.layers",
        ),
    ],
)
def test_weights_beyond_one_stack_of_blocks_are_refused(tmp_path, shapes, said):
    as_peft(tmp_path, adapter())
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / PEFT_FILE)
    with pytest.raises(ModelError, match=said):
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


def test_magnitudes_start_as_the_norms_of_the_layers_rows():
    weight = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
    shapes = {"1.q.lora_A": (1, 2), "1.q.lora_B": (2, 1), "1.q.lora_magnitude_vector": (2,)}
    found = initial_weights(shapes, 0, {"1.q": weight}.__getitem__)
    assert found["1.q.lora_magnitude_vector"].tolist() == [5, 2]
    assert (found["1.q.lora_A"] == initial_lora("1.q.lora_A", (1, 2), 0)).all()


def test_weights_that_do_not_fit_are_named():
    expected = {"a": (2, 3), "b": (1,)}
    with pytest.raises(ModelError, match=r"1 are missing \(such as b\), 1 are not .*such as c"):
        check_shapes({"a": np.ones((2, 3)), "c": np.ones(1)}, expected)
    with pytest.raises(ModelError, match=r"weight a has shape \(3, 2\), expected \(2, 3\)"):
        check_shapes({"a": np.ones((3, 2)), "b": np.ones(1)}, expected)
    check_shapes({"a": np.ones((2, 3)), "b": np.ones(1)}, expected)


def test_a_common_shape_keeps_what_each_adapter_adds():
    generator = np.random.default_rng(0)

    def adapter(rank, scale, places, layers):
        weights = {}
        for place in places:
            weights[f"{place}.lora_A"] = generator.normal(size=(rank, 5)).astype(np.float32)
            weights[f"{place}.lora_B"] = generator.normal(size=(4, rank)).astype(np.float32)
        return Adapter(rank, scale, 0.0, layers, weights)

    sides = [adapter(2, 3.0, ["1.q", "2.q"], 2), adapter(4, 0.5, ["2.v"], 1)]
    shape, fitted = common_shape(sides)
    assert (shape.rank, shape.num_layers, shape.target_modules) == (4, 2, ("q", "v"))
    for side, weights in zip(sides, fitted, strict=True):
        for place in side.places():
            a, b = (weights[f"{place}.lora_{letter}"] for letter in "AB")
            assert a.shape == (4, 5)
            before = side.scale * side.weights[f"{place}.lora_B"] @ side.weights[f"{place}.lora_A"]
            np.testing.assert_allclose(shape.scale * b @ a, before, rtol=1e-5)


def test_lora_and_dora_have_no_common_shape():
    matrices = {"0.q.lora_A": np.ones((1, 2)), "0.q.lora_B": np.ones((2, 1))}
    plain = Adapter(1, 1.0, 0.0, 1, matrices)
    dora = Adapter(1, 1.0, 0.0, 1, matrices | {"0.q.lora_magnitude_vector": np.ones(2)})
    with pytest.raises(ModelError, match="merge one into"):
        common_shape([plain, dora])

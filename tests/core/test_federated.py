"""What a federation computes, by hand: partition, layer scores, FedPepTAO's server step, checks."""

import json

import numpy as np
import pytest

from fpo_core.config.federated import FederateConfig
from fpo_core.errors import ConfigError, DataError
from fpo_core.federated.layers import (
    chosen_blocks,
    exchanged,
    layer_score,
    mean_scores,
    random_blocks,
)
from fpo_core.federated.partition import divide, parse_partition, write_partition
from fpo_core.federated.peptao import PeptaoState, Update, weighted_mean
from fpo_core.federated.replies import fault


def w(*values):
    return {"w": np.array(values, np.float32)}


def test_two_rounds_by_hand():
    """Two clients with 1 and 3 pairs, 2 steps each at lr 0.1, so steps · lr = 0.2.

    Round 1 from (0, 0): w_1 = (0.2, 0), w_2 = (0, 0.4). w̄ = (0.05, 0.3), Δ_1 = (−0.05, −0.3).
    c_1 = (−1, 0), c_2 = (0, −2), both weighted by steps alike: c = (−0.5, −1). w = w̄.
    Round 2: w_1 = (0.25, 0.3), w_2 = (0.05, 0.5). w̄ = (0.1, 0.45), Δ_2 = (−0.05, −0.15).
    c_1' = c_1 − c + (−1, 0) = (−1.5, 1), c_2' = c_2 − c + (0, −1) = (0.5, −2);
    c += ½((−0.5, 1) + (0.5, 0)) = (0, 0.5) -> (−0.5, −0.5). ¼c_1' + ¾c_2' = (0, −1.25).
    v = 0.1 (Δ_1 − Δ_2) + c − Σ p c' = (0, −0.015) + (−0.5, 0.75) = (−0.5, 0.735).
    w = w̄ − 0.05 v = (0.125, 0.41325).
    """
    state = PeptaoState(learning_rate=0.1, clients=2)
    start = w(0, 0)
    first = state.step(start, [Update("a", w(0.2, 0), 1, 2), Update("b", w(0, 0.4), 3, 2)])
    np.testing.assert_allclose(first["w"], [0.05, 0.3], rtol=1e-6)
    np.testing.assert_allclose(state.c["w"], [-0.5, -1], rtol=1e-6)
    second = state.step(first, [Update("a", w(0.25, 0.3), 1, 2), Update("b", w(0.05, 0.5), 3, 2)])
    np.testing.assert_allclose(state.c_i["a"]["w"], [-1.5, 1], rtol=1e-5)
    np.testing.assert_allclose(state.c_i["b"]["w"], [0.5, -2], rtol=1e-5)
    np.testing.assert_allclose(state.c["w"], [-0.5, -0.5], rtol=1e-5)
    np.testing.assert_allclose(state.v["w"], [-0.5, 0.735], rtol=1e-5)
    np.testing.assert_allclose(second["w"], [0.125, 0.41325], rtol=1e-5)


def test_the_mean_of_c_i_stays_c_while_all_are_present(tmp_path):
    generator = np.random.default_rng(0)
    state, weights = PeptaoState(learning_rate=0.05, clients=3), w(*generator.normal(size=4))
    for _ in range(5):
        updates = [Update(n, w(*generator.normal(size=4)), 2, 3) for n in ("a", "b", "c")]
        weights = state.step(weights, updates)
        mean = np.mean([own["w"] for own in state.c_i.values()], axis=0)
        np.testing.assert_allclose(mean, state.c["w"], rtol=1e-4, atol=1e-4)
    state.save(tmp_path / "state.safetensors")
    again = PeptaoState(learning_rate=0.05, clients=3)
    again.load(tmp_path / "state.safetensors")
    updates = [Update("b", w(*generator.normal(size=4)), 2, 3)]
    np.testing.assert_array_equal(
        again.step(weights, updates)["w"], state.step(weights, updates)["w"]
    )
    assert again.round == 6


def test_a_client_that_is_away_keeps_its_variate():
    state = PeptaoState(learning_rate=0.1, clients=2)
    state.step(w(0), [Update("a", w(0.1), 1, 1)])
    assert set(state.c_i) == {"a"}
    np.testing.assert_allclose(state.c["w"], [-0.5])  # half are present: ½ · (−1)


def test_the_weighted_mean():
    mean = weighted_mean([w(1, 2), w(5, 10)], [1, 3])
    np.testing.assert_allclose(mean["w"], [4, 8])
    np.testing.assert_array_equal(weighted_mean([w(0.1)], [7])["w"], np.float32([0.1]))


@pytest.mark.parametrize("cos", [0.0, 0.6, -0.6])
def test_a_layer_score_of_two_samples(cos):
    """A 2 × 2 cosine matrix has the eigenvalues 1 ± cos."""
    states = np.array([[3.0, 0, 0, 0], [2 * cos, 2 * np.sqrt(1 - cos**2), 0, 0]])
    eigenvalues = np.array([1 + cos, 1 - cos]) + 1e-5
    assert layer_score(states) == pytest.approx(np.sum(np.log(eigenvalues) + 1 / eigenvalues))


def test_which_blocks_are_exchanged():
    scores = mean_scores([[1, 5, 2, 0], [1, 1, 6, 0]], [1, 1])
    np.testing.assert_allclose(scores, [1, 3, 4, 0])
    assert chosen_blocks(scores, 0.5) == [1, 2]
    assert chosen_blocks(scores, 0.1) == [2]
    assert len(random_blocks(4, 0.5, seed=3)) == 2
    names = ["0.q.lora_A", "0.q.lora_B", "10.q.lora_B", "prompt.embeddings"]
    assert exchanged(names, None, freeze_a=True) == [*names[1:]]
    assert exchanged(names, [0], freeze_a=False) == ["0.q.lora_A", "0.q.lora_B", names[3]]


@pytest.mark.parametrize("alpha", [None, 0.5, 100.0])
def test_every_row_goes_to_one_client(alpha):
    labels = ["x", "y", "z", "x"] * 50
    parts = divide(labels, 200, 4, alpha, seed=0)
    assert sorted(np.concatenate(parts)) == list(range(200))
    counts = np.array([[sum(labels[i] == k for i in p) for k in "xyz"] for p in parts])
    spread = (counts / counts.sum(0)).std()
    assert spread < 0.05 if alpha in (None, 100.0) else spread > 0.15


def test_partition_files(tmp_path):
    rows = [{"text": str(i), "kind": i % 2} for i in range(20)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = write_partition(source, tmp_path / "out", 2, 1.0, "kind", seed=0)
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert sorted(lines, key=lambda row: int(row["text"])) == rows
    with pytest.raises(DataError, match=r"by is 'color', but row 1 .* columns text, kind"):
        write_partition(source, tmp_path / "out", 2, 1.0, "color", seed=0)
    with pytest.raises(DataError, match="would get none of 20 rows"):
        write_partition(source, tmp_path / "out", 30, None, None, seed=0)
    assert parse_partition("dirichlet:0.5") == 0.5
    for text in ("dirichlet:0", "dirichlet", "halves"):
        with pytest.raises(ConfigError, match="expected even, or dirichlet:A"):
            parse_partition(text)


def test_what_a_client_may_not_send():
    expected = {"a": (2,)}
    good = {"a": np.zeros(2, np.float32)}
    assert fault(good, expected, 3, 1) is None
    assert fault({}, expected, 3, 1) == "a is missing"
    assert (
        fault({"a": np.zeros(3, np.float32)}, expected, 3, 1) == "a has shape (3,), expected (2,)"
    )
    assert "float64" in str(fault({"a": np.zeros(2)}, expected, 3, 1))
    bad = {"a": np.array([0, np.nan], np.float32)}
    assert fault(bad, expected, 3, 1) == "a holds a number that is not finite"
    assert "was not asked for" in str(fault(good | {"b": good["a"]}, expected, 3, 1))
    for pairs in (0, -1, np.inf, 1.5):
        assert "pairs is" in str(fault(good, expected, pairs, 1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iters": 3}, "iters is set, but a federation takes rounds"),
        ({"fine_tune_type": "full"}, "fine_tune_type is full, which federate does not take"),
        ({"objective": "tdpo2"}, "compares with the reference in every step"),
        ({"dry_run": True}, "dry_run is True, which federate does not take: it trains at once"),
        ({"push_to_hub": "me/adapter"}, "push_to_hub is me/adapter, which federate does not take"),
        ({"max_kl": 0.1}, "max_kl is 0.1, which federate does not take"),
        ({"partition": "dirichlet:1"}, "partition is dirichlet:1 while by is None"),
    ],
)
def test_what_the_settings_refuse(settings, words):
    with pytest.raises(ConfigError, match=words):
        FederateConfig(model="m", data="d", output="o", **({"objective": "dpo"} | settings))


def test_a_client_named_with_a_bar(tmp_path):
    """Its variate is found again: what parts it from the weight's name is the last one."""
    state = PeptaoState(learning_rate=0.1, clients=1)
    state.step(w(0), [Update("a|b", w(0.1), 1, 1)])
    state.save(tmp_path / "state.safetensors")
    again = PeptaoState(learning_rate=0.1, clients=1)
    again.load(tmp_path / "state.safetensors")
    assert again.c_i == {"a|b": {"w": pytest.approx(state.c_i["a|b"]["w"])}}

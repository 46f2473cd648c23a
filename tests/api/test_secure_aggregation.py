"""Rounds by Flower's SecAgg+, with clients of two numbers, and with those of a model."""

# pyright: reportMissingImports=false

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.common import bytes_to_ndarray, ndarray_to_bytes, serde
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs

from fpo.federation.apps import LocalGrid, client_app
from fpo.federation.client import LocalResult
from fpo.federation.secure_rounds import secure_rounds
from fpo.federation.strategies import Ledger
from fpo_core.config.federated import FederationConfig
from fpo_core.errors import ConfigError

START = {"v": np.array([[0.25, -1.5]], np.float32), "w": np.array([1, -1], np.float32)}
PAIRS = {1: 3, 2: 5, 3: 9}


class Toy:
    """A client that moves its weights by a quarter of its number."""

    def __init__(self, number: int) -> None:
        self.number, self.name, self.pairs = number, f"client-{number}", PAIRS[number]

    def train(self, sent: Any, number: int, local_iters: int, *, mu: float = 0.0) -> LocalResult:
        weights = {name: w + np.float32(self.number / 4) for name, w in sent.items()}
        return LocalResult(weights, self.pairs, local_iters, float(self.number))


class Fleet(LocalGrid):
    """Toys, some of which are lost at a stage of each round; sees what the server is sent.

    Messages and what clients remember between them go through Flower's serialisation.
    """

    def __init__(self, nodes: Iterable[int], lost: dict[str, set[int]] | None = None) -> None:
        toys: Any = {node: Toy(node % 16) for node in nodes}
        app = client_app(lambda context: toys[context.node_id], lambda context: True)
        super().__init__(app, {node: {} for node in toys})
        self.lost = lost or {}
        self.seen: list[Message] = []

    def send_and_receive(self, messages: Iterable[Message], **options: Any) -> list[Message]:
        messages = list(messages)
        config: Any = messages[0].content[RECORD_KEY_CONFIGS]
        stage = config[Key.STAGE]
        lost = self.lost.get(stage, set())
        replies = super().send_and_receive(
            m for m in messages if m.metadata.dst_node_id not in lost
        )
        self.seen += replies if stage == Stage.COLLECT_MASKED_VECTORS else []
        return list(replies)

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(wired(message))
        context = self._contexts[message.metadata.dst_node_id]
        context.state = serde.recorddict_from_proto(serde.recorddict_to_proto(context.state))
        return wired(reply)


def wired(message: Message) -> Message:
    """A message as it comes out of a network."""
    if message.has_content():
        message = copy.deepcopy(message)
        message.content = serde.recorddict_from_proto(serde.recorddict_to_proto(message.content))
    return message


def run(folder: Path, grid: LocalGrid, **settings: Any) -> dict[str, np.ndarray]:
    values = {"rounds": 1, "clients": 3, "local_iters": 1, "max_pairs": 10, **settings}
    config = FederationConfig(secure_aggregation=True, **values)
    return secure_rounds(config, grid, Ledger(folder, lambda event: None), START, 0)


def rounds_in(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "rounds.json").read_text())["rounds"]


def check_mean(result: dict[str, np.ndarray], nodes: Iterable[int], rounds: int = 1) -> None:
    """The weighted mean of these clients, within the steps that their weights are rounded to."""
    weights = [PAIRS[node] for node in nodes]
    moved = rounds * np.average([node / 4 for node in nodes], weights=weights)
    step = 2 * 8.0 / 2**22 * len(weights) / (sum(weights) / 10)
    for name, start in START.items():
        np.testing.assert_allclose(result[name], start + moved, rtol=0, atol=2 * rounds * step)


def test_the_mean_of_masked_weights(tmp_path: Path) -> None:
    """Two rounds, as Flower's own fedavg would have them; bytes are those of 64-bit integers."""
    large = Fleet(2**64 - 16 + node for node in PAIRS)
    check_mean(run(tmp_path, large, rounds=2), PAIRS, rounds=2)
    first, second = rounds_in(tmp_path)
    assert first["clients"] == second["clients"] == [f"client-{node}" for node in PAIRS]
    assert first["left_out"] == {}
    assert first["loss"] == pytest.approx(np.average([*PAIRS], weights=[*PAIRS.values()]))
    assert (first["bytes_down"], first["bytes_up"]) == (3 * 4 * 4, 3 * 5 * 8)


def masked(reply: Message) -> np.ndarray:
    records: Any = reply.content
    arrays = records[RECORD_KEY_CONFIGS][Key.MASKED_PARAMETERS]
    return np.concatenate([bytes_to_ndarray(array).ravel() for array in arrays])


def test_the_server_is_sent_no_single_update(tmp_path: Path) -> None:
    """Masks cover the whole range, differ from run to run, and beside them is no array."""
    sent = []
    for name in ("once", "again"):
        grid = Fleet(PAIRS)
        run(tmp_path / name, grid)
        assert len(grid.seen) == 3
        for reply in grid.seen:
            assert all(len(record) == 0 for record in reply.content.array_records.values())
        sent.append(np.stack([masked(reply) for reply in grid.seen]))
    quantized = (np.concatenate([w.ravel() for w in START.values()]) + 8) * 2**22 / 16
    assert np.abs(sent[0][:, 1:] - quantized).min() > 2**10
    assert np.abs(sent[0] - sent[1]).min() > 2**10
    assert sent[0].max() > 2**31


def test_masks_come_from_few_bits() -> None:
    """What docs/federated.md says: a seed is folded to 32 bits, the XOR of its words.

    That of two clients is base64, whose bytes have no highest bit.
    """
    zero, seven = (pseudo_rand_gen(seed, 2**32, [(4,)])[0] for seed in (bytes(32), b"\7" * 32))
    np.testing.assert_array_equal(zero, seven)
    key = generate_shared_key(generate_key_pairs()[0], generate_key_pairs()[1])
    assert max(key) < 128


@pytest.mark.parametrize("stage", Stage.all())
def test_a_client_that_is_lost(tmp_path: Path, stage: str) -> None:
    """At any stage: the others' mean, or everyone's where its masked weights were there."""
    result = run(tmp_path, Fleet(PAIRS, {stage: {2}}))
    (facts,) = rounds_in(tmp_path)
    if stage == Stage.UNMASK:
        check_mean(result, PAIRS)
        assert facts["left_out"] == {}
        return
    check_mean(result, [1, 3])
    assert facts["clients"] == ["client-1", "client-3"]
    assert facts["left_out"] == {"node 2": "no answer in time"}


@pytest.mark.parametrize("stage", [Stage.SETUP, Stage.UNMASK])
def test_too_few_clients(tmp_path: Path, stage: str) -> None:
    """Below the threshold the weights stay, and the next round begins with them."""
    grid = Fleet(PAIRS, {stage: {2, 3}})
    result = run(tmp_path, grid)
    (facts,) = rounds_in(tmp_path)
    assert facts["clients"] == []
    assert facts["loss"] is None
    assert "too few" in facts["left_out"]["everyone"]
    assert facts["left_out"]["node 2"] == "no answer in time"
    for name, start in START.items():
        np.testing.assert_array_equal(result[name], start)
    grid.lost = {}
    ledger = Ledger(tmp_path, lambda event: None)
    weights = ledger.open()
    assert weights is not None
    config = FederationConfig(secure_aggregation=True, rounds=2, clients=3, max_pairs=10)
    check_mean(secure_rounds(config, grid, ledger, weights, 0), PAIRS)


def changed(grid: Fleet, node: int, key: str, value: Any) -> None:
    """Let a node lie in a record of its masked answer."""
    honest = grid._answer

    def answer(message: Message) -> Message:
        reply = honest(message)
        if reply.metadata.src_node_id == node and not reply.has_error():
            for record in reply.content.values():
                if key in record:
                    record[key] = value
        return reply

    grid._answer = answer


LIES: list[tuple[str, Any, str]] = [
    (Key.MASKED_PARAMETERS, [ndarray_to_bytes(np.zeros(1, np.int64))], "other shapes or types"),
    (Key.MASKED_PARAMETERS, [b"\0"], "cannot be read"),
    ("num_examples", 11, "expected 1 to 10"),
    ("loss", float("nan"), "not finite"),
]


@pytest.mark.parametrize("lie", LIES)
def test_a_client_that_lies(tmp_path: Path, lie: tuple[str, Any, str]) -> None:
    key, value, why = lie
    grid = Fleet(PAIRS)
    changed(grid, 3, key, value)
    check_mean(run(tmp_path, grid), [1, 2])
    assert why in rounds_in(tmp_path)[0]["left_out"]["node 3"]


def test_a_client_that_breaks_the_protocol(tmp_path: Path) -> None:
    """Shares that are none spoil the round, and the weights stay."""
    grid = Fleet(PAIRS)
    changed(grid, 3, Key.SHARE_LIST, [b"\1"])
    result = run(tmp_path, grid)
    assert "SecAgg+ ended in" in rounds_in(tmp_path)[0]["left_out"]["everyone"]
    np.testing.assert_array_equal(result["w"], START["w"])


def test_what_is_not_masked_is_refused(tmp_path: Path) -> None:
    refused: list[dict[str, Any]] = [{"strategy": "fedavgm"}, {"layers": "score"}, {"clients": 1}]
    for wrong in refused:
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is .* secure_aggregation"):
            FederationConfig(secure_aggregation=True, **wrong)
    run(tmp_path / "pairs", Fleet(PAIRS), max_pairs=8)
    assert (
        "holds 9 pairs, but max_pairs is 8"
        in rounds_in(tmp_path / "pairs")[0]["left_out"]["node 3"]
    )
    run(tmp_path / "range", Fleet(PAIRS), clipping_range=1.7)
    assert "clipping_range is 1.7" in rounds_in(tmp_path / "range")[0]["left_out"]["node 3"]


def test_a_client_whose_weights_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so itself, whichever array holds the NaN: masked, nobody else could."""
    honest = Toy.train

    def train(self: Toy, *args: Any, **options: Any) -> LocalResult:
        result = honest(self, *args, **options)
        if self.number == 3:
            result.weights["w"][0] = np.nan
        return result

    monkeypatch.setattr(Toy, "train", train)
    check_mean(run(tmp_path, Fleet(PAIRS)), [1, 2])
    assert "a weight of client-3 is nan" in rounds_in(tmp_path)[0]["left_out"]["node 3"]

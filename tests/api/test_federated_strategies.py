"""Rounds with clients of two numbers: who is left out, what is resumed, Flower's privacy."""

# pyright: reportMissingImports=false

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, Strategy

from fpo.federation.apps import LocalGrid
from fpo.federation.strategies import (
    CLIENT,
    PAIRS,
    STEPS,
    Checked,
    Ledger,
    arrays_of,
    make_strategy,
    numpy_of,
)
from fpo_core.config.federated import FederationConfig
from fpo_core.federated.weight_files import read_weights

START = {"w": np.array([1, -1], np.float32)}
Wrap = Callable[[Strategy], Strategy]


def toy() -> ClientApp:
    """A client that moves its weights by its number; `name` is what it calls itself."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = float(context.node_config["number"])
        weights = {
            n: w + np.float32(number) for n, w in numpy_of(message.content["arrays"]).items()
        }
        about = ConfigRecord({CLIENT: str(context.node_config["name"])})
        metrics = MetricRecord({PAIRS: 4, STEPS: 1, "loss": number})
        content = {"arrays": arrays_of(weights), "metrics": metrics, "about": about}
        return Message(RecordDict(content), reply_to=message)

    return app


class Fleet(LocalGrid):
    """A grid whose nodes come and go by the round; what it sent to a lost one is not answered."""

    def __init__(self, names: Iterable[str], rounds: list[list[int]], lost: set[int]) -> None:
        super().__init__(
            toy(), {n: {"number": n, "name": name} for n, name in enumerate(names, start=1)}
        )
        self.rounds, self.lost = rounds, lost

    def get_node_ids(self) -> list[int]:
        return self.rounds[0]

    def send_and_receive(self, messages: Iterable[Message], **options: Any) -> list[Message]:
        messages = list(messages)
        replies = [
            reply
            for reply in super().send_and_receive(messages)
            if reply.metadata.src_node_id not in self.lost
        ]
        for message in messages:
            if message.metadata.dst_node_id in self.lost:
                # As a SuperLink answers for a node without heartbeat: in its own name.
                error = Message(Error(3, "no heartbeat\n"), reply_to=message)
                error.metadata.__dict__["_src_node_id"] = 99
                replies.append(error)
        if messages and len(self.rounds) > 1:
            self.rounds.pop(0)
        return replies


def run(
    folder: Path, grid: LocalGrid, wrap: Wrap = lambda inner: inner, **settings: Any
) -> dict[str, np.ndarray]:
    """The weights after the rounds of the settings that are left."""
    config = FederationConfig(**{"rounds": 2, "clients": 2, **settings})
    ledger = Ledger(folder, lambda event: None)
    weights = ledger.open() or START
    base = make_strategy(config, 0.1)
    strategy = Checked(base, ledger, config, 0, wrap(base))
    left = config.rounds - len(ledger.rounds)
    options = ConfigRecord({"local-iters": 1})
    return numpy_of(strategy.start(grid, arrays_of(weights), left, train_config=options).arrays)


def pair() -> LocalGrid:
    return Fleet(["a", "b"], [[1, 2]], set())


def rounds_in(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "rounds.json").read_text())["rounds"]


def test_nodes_that_come_and_go(tmp_path: Path) -> None:
    """All are waited for at the start; later a lost node is named, and holds up no round."""
    grid = Fleet(["a", "b", "c"], [[1, 2, 3], [1, 2], [1, 2, 3]], {2})
    result = run(tmp_path, grid, clients=3, rounds=3)
    first, second, third = rounds_in(tmp_path)
    assert first["clients"] == third["clients"] == ["a", "c"]
    assert first["left_out"] == third["left_out"] == {"node 2": "no heartbeat"}
    assert second["clients"] == ["a"]
    assert second["left_out"] == {"node 2": "no heartbeat", "node 3": "not connected"}
    np.testing.assert_array_equal(result["w"], START["w"] + 2 + 1 + 2)


def test_those_that_come_late_are_not_waited_for_forever(tmp_path: Path) -> None:
    run(tmp_path, Fleet(["a", "b"], [[1]], set()), clients=2, rounds=1, round_timeout=0.01)
    assert rounds_in(tmp_path)[0]["clients"] == ["a"]


def test_a_name_that_another_client_has(tmp_path: Path) -> None:
    """A client may not stand in for another, nor count twice."""
    run(tmp_path, Fleet(["a", "a"], [[1, 2]], set()), rounds=1)
    (facts,) = rounds_in(tmp_path)
    assert facts["clients"] == ["a"]
    assert facts["left_out"] == {"a of node 2": "another has its name"}


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "fedprox", "fedpeptao"])
def test_rounds_go_on(tmp_path: Path, strategy: str) -> None:
    """Stopped after two rounds and resumed, a strategy ends at the bits of an undisturbed one."""
    whole = run(tmp_path / "whole", pair(), strategy=strategy, rounds=4)
    run(tmp_path / "cut", pair(), strategy=strategy, rounds=2)
    again = run(tmp_path / "cut", pair(), strategy=strategy, rounds=4)
    np.testing.assert_array_equal(again["w"], whole["w"])
    assert rounds_in(tmp_path / "cut") == rounds_in(tmp_path / "whole")


def private(noise: float, clip: float) -> Wrap:
    return lambda inner: DifferentialPrivacyServerSideFixedClipping(inner, noise, clip, 2)


def test_differential_privacy_of_flower(tmp_path: Path) -> None:
    """A large clip without noise changes nothing; a small one bounds the update; noise is kept."""
    plain = run(tmp_path / "plain", pair(), rounds=1)
    wide = run(tmp_path / "wide", pair(), private(0.0, 1e6), rounds=1)
    np.testing.assert_allclose(wide["w"], plain["w"], rtol=1e-6)
    clipped = run(tmp_path / "clipped", pair(), private(0.0, 0.01), rounds=1)
    assert np.linalg.norm(clipped["w"] - START["w"]) == pytest.approx(0.01, rel=1e-3)
    noisy = run(tmp_path / "noisy", pair(), private(1.0, 0.01), rounds=1)
    assert not np.array_equal(noisy["w"], clipped["w"])
    # What is resumed, and becomes the adapter, has the noise too.
    written = read_weights(tmp_path / "noisy" / "global-1.safetensors")
    np.testing.assert_array_equal(written["w"], noisy["w"])


def test_privacy_where_a_client_is_lost(tmp_path: Path) -> None:
    """Flower's wrapper skips rounds with an error; it never sees those that are left out."""
    grid = Fleet(["a", "b"], [[1, 2]], {2})
    result = run(tmp_path, grid, private(0.0, 0.01), rounds=1)
    assert np.linalg.norm(result["w"] - START["w"]) == pytest.approx(0.01, rel=1e-3)
    assert rounds_in(tmp_path)[0]["clients"] == ["a"]


def _extra_metric(content: Any) -> None:
    content["metrics"]["other"] = 1.0


def _two_metrics(content: Any) -> None:
    content["other"] = MetricRecord({"other": 1})


def _two_arrays(content: Any) -> None:
    content["other"] = arrays_of({"other": np.zeros(2, np.float32)})


def _name_of_a_metric(content: Any) -> None:
    content["about"] = MetricRecord({CLIENT: 2})


def _loss_in_bytes(content: Any) -> None:
    content["metrics"] = ConfigRecord({PAIRS: 4, STEPS: 1, "loss": b"1"})


@pytest.mark.parametrize(
    ("lie", "clients"),
    [
        (_extra_metric, ["a", "b"]),
        (_two_metrics, ["a", "b"]),
        (_two_arrays, ["a", "b"]),
        (_name_of_a_metric, ["2", "a"]),
        (_loss_in_bytes, ["a"]),
    ],
)
@pytest.mark.parametrize("strategy", ["fedavg", "fedpeptao"])
def test_records_that_nobody_asked_for(
    tmp_path: Path, strategy: str, lie: Callable[[Any], None], clients: list[str]
) -> None:
    """Flower ends a run whose replies differ in their records; one client may not do that."""
    grid = pair()
    honest = grid._answer

    def answer(message: Message) -> Message:
        reply = honest(message)
        if reply.metadata.src_node_id == 2:
            lie(reply.content)
        return reply

    grid._answer = answer
    run(tmp_path, grid, strategy=strategy)
    assert [facts["clients"] for facts in rounds_in(tmp_path)] == [clients, clients]


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "fedpeptao"])
@pytest.mark.parametrize("stopped", ["weights", "rounds"])
def test_stopped_while_a_round_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str, stopped: str
) -> None:
    """The round is taken again from what the one before it left, momentum included."""
    from fpo.federation import strategies

    whole = run(tmp_path / "whole", pair(), strategy=strategy, rounds=4)
    run(tmp_path / "cut", pair(), strategy=strategy, rounds=2)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stopped == "weights":
            patch.setattr(Ledger, "close_round", stop)
        else:
            patch.setattr(strategies, "write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut", pair(), strategy=strategy, rounds=4)
    again = run(tmp_path / "cut", pair(), strategy=strategy, rounds=4)
    np.testing.assert_array_equal(again["w"], whole["w"])

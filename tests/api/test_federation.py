"""Federations of simulated clients, on Flower's strategies."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fpo
from fpo_core.adapters.reader import load_adapter
from fpo_core.config import AdapterConfig, TrainConfig
from fpo_core.config.federated import FederationConfig
from fpo_core.errors import ConfigError, DataError
from fpo_core.federated.peptao import weighted_mean
from tests.api.conftest import Settings
from tests.helpers import BACKENDS


@pytest.fixture(scope="module")
def rows(cache: Path, small: Settings) -> Path:
    """Some pairs with a column to divide by."""
    lines = (Path(small["pairs"]) / "train.jsonl").read_text().splitlines()[:48]
    kept = [json.loads(line) for line in lines]
    for row in kept:
        row["kind"] = "json" if row["chosen"][0]["content"].startswith("{") else "text"
    path = cache / "federated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return path


@pytest.fixture
def settings(small: Settings, rows: Path, tmp_path: Path) -> Settings:
    """A federation of a few steps."""
    return {
        "model": small["model"],
        "data": rows,
        "objective": "dpo-norm",
        "backend": "torch",
        "max_seq_length": 64,
        "batch_size": 4,
        "rank": 2,
        "rounds": 2,
        "local_iters": 1,
        "clients": 2,
        "learning_rate": 1e-2,
        "valid_fraction": 0.2,
        "output": tmp_path / "fed",
    }


def test_the_server_knows_the_rate_of_the_clients(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FedPepTAO divides by it; the default's goes with the model's width, here 128."""
    from fpo.federation import rounds

    made, asked = rounds.make_strategy, []

    def asking(config: FederationConfig, rate: float) -> Any:
        asked.append(rate)
        return made(config, rate)

    monkeypatch.setattr(rounds, "make_strategy", asking)
    few = {**settings, "objective": "fpo", "alpha": 0, "learning_rate": None, "rounds": 1}
    fpo.federate(**few, strategy="fedpeptao")
    assert asked == [pytest.approx(2.7e-3)]


def adapter(folder: Path) -> dict[str, np.ndarray]:
    return load_adapter(folder).weights


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("freeze_a", [True, False])
def test_one_client_and_one_round_are_train(
    settings: Settings, tmp_path: Path, backend: str, freeze_a: bool
) -> None:
    shared = {**settings, "backend": backend, "freeze_a": freeze_a}
    one = fpo.federate(**{**shared, "clients": 1, "rounds": 1, "local_iters": 3})
    names = TrainConfig.names()
    alone = {name: value for name, value in shared.items() if name in names}
    data = one.output / "clients" / "client-0.jsonl"
    run = fpo.train(
        **{**alone, "data": data, "output": tmp_path / "alone"}, iters=3, val_pairs=2, report=False
    )
    ours, theirs = adapter(one.output / "adapter"), adapter(run.output)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        np.testing.assert_array_equal(ours[name], weight)
        if name.endswith("lora_A"):
            start = np.abs(weight).max()
            assert start > 0
    sent = one.rounds[0]["bytes_up"]
    halves = [w.nbytes for n, w in ours.items() if not (freeze_a and n.endswith("lora_A"))]
    assert sent == sum(halves)


def test_the_mean_is_flowers(settings: Settings) -> None:
    """Ours, which FedPepTAO starts from, gives the bits of Flower's `aggregate_arrayrecords`."""
    from flwr.app import MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    from fpo.federation.strategies import arrays_of, numpy_of

    generator = np.random.default_rng(0)
    weights = [{"w": generator.normal(size=(3, 2)).astype(np.float32)} for _ in range(3)]
    records = [
        RecordDict({"arrays": arrays_of(w), "metrics": MetricRecord({"n": n})})
        for w, n in zip(weights, (3, 5, 9), strict=True)
    ]
    theirs = numpy_of(aggregate_arrayrecords(records, "n"))
    np.testing.assert_allclose(weighted_mean(weights, (3, 5, 9))["w"], theirs["w"], rtol=1e-6)


def test_a_federation_goes_on(settings: Settings, tmp_path: Path) -> None:
    """Stopped after a round and resumed, it ends as if it had not been."""
    settings |= {"strategy": "fedprox", "partition": "dirichlet:5", "by": "kind", "rounds": 3}
    settings |= {"schedule": "constant", "warmup": 0.0}
    whole = fpo.federate(**settings)
    assert len(whole.rounds) == 3
    cut = tmp_path / "cut"
    fpo.federate(**{**settings, "rounds": 1, "output": cut})
    with pytest.raises(ConfigError, match="set resume to go on"):
        fpo.federate(**{**settings, "output": cut})
    again = fpo.federate(**{**settings, "output": cut, "resume": True})
    assert [r["round"] for r in again.rounds] == [1, 2, 3]
    before, after = adapter(whole.output / "adapter"), adapter(again.output / "adapter")
    for name, weight in before.items():
        np.testing.assert_array_equal(after[name], weight)
    assert whole.bytes_sent == 3 * 2 * 2 * sum(
        w.nbytes for n, w in before.items() if n.endswith("lora_B")
    )
    assert 0 <= whole.clients[whole.worst]["accuracy"] <= whole.mixture <= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_rounds_end_where_plain_ones_do(
    settings: Settings, tmp_path: Path, backend: str
) -> None:
    """Within the steps of SecAgg+: 16 / 2^22 a client, over its share of max_pairs."""
    settings |= {"backend": backend, "rounds": 1, "max_pairs": 40}
    plain = adapter(fpo.federate(**settings).output / "adapter")
    result = fpo.federate(**settings | {"output": tmp_path / "masked"}, secure_aggregation=True)
    assert result.rounds[0]["clients"] == ["client-0", "client-1"]
    for name, weight in adapter(result.output / "adapter").items():
        np.testing.assert_allclose(weight, plain[name], rtol=0, atol=2 * 2 * 16 / 2**22)
        assert "lora_B" not in name or np.abs(weight).max() > 1e-3


@pytest.mark.parametrize("layers", ["score", "random"])
def test_some_layers_stay_at_home(settings: Settings, layers: str) -> None:
    result = fpo.federate(**settings, layers=layers, layer_share=0.5)
    blocks = result.blocks
    assert blocks is not None
    shared = adapter(result.output / "adapter")
    own = [adapter(result.output / "clients" / f"client-{n}" / "adapter") for n in range(2)]
    assert {int(n.split(".")[0]) for n in shared} > set(blocks)
    for name in shared:
        if not name.endswith("lora_B"):
            continue
        if int(name.split(".")[0]) in blocks:
            np.testing.assert_array_equal(own[0][name], own[1][name])
            assert np.abs(shared[name]).max() > 0
        else:
            assert not np.array_equal(own[0][name], own[1][name])
            assert np.abs(shared[name]).max() == 0


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_virtual_tokens_are_exchanged(settings: Settings, kind: str) -> None:
    settings = {k: v for k, v in settings.items() if k != "rank"}
    result = fpo.federate(**settings, fine_tune_type=kind, virtual_tokens=2)
    assert (result.output / "adapter" / "adapter_model.safetensors").is_file()
    assert result.bytes_sent > 0


def test_replies_that_are_left_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that fails, one with another shape and one with NaN are named; the rest goes on."""
    from fpo.federation.client import Client, LocalResult

    honest = Client.train

    def train(self: Client, sent, number, local_iters, *, mu=0.0) -> LocalResult:
        who = self.folder.name
        if who == "client-1":
            raise RuntimeError("out of disk")
        result = honest(self, sent, number, local_iters, mu=mu)
        name = min(result.weights)
        if who == "client-2":
            result.weights[name] = result.weights[name][:, :1]
        if who == "client-3":
            result.weights[name] = result.weights[name] * np.float32(np.nan)
        return result

    monkeypatch.setattr(Client, "train", train)
    warned: list[str] = []
    sink = lambda event: event.kind == "warning" and warned.append(event.values["message"])  # noqa: E731
    result = fpo.federate(**{**settings, "clients": 4, "valid_fraction": 0.5}, sink=sink)
    for number, facts in enumerate(result.rounds, start=1):
        assert facts["clients"] == ["client-0"]
        assert facts["round"] == number
        left_out = facts["left_out"]
        assert "out of disk" in left_out["node 2"]
        assert "has shape" in left_out["client-2"]
        assert "not finite" in left_out["client-3"]
    assert len(warned) == 6
    monkeypatch.undo()
    shutil.rmtree(result.output)


def test_settings_of_lora_a(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="would shrink A"):
        fpo.federate(**settings, weight_decay=0.1)
    assert not AdapterConfig().freeze_a


def test_a_start_that_is_refused_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    """The corrected command is no second start, and no resumption."""
    with pytest.raises(DataError, match="expected one file of pairs"):
        fpo.federate(**{**settings, "data": tmp_path / "absent.jsonl"})
    with pytest.raises(DataError, match="leaves no valid pair"):
        fpo.federate(**{**settings, "clients": 40})
    assert len(fpo.federate(**{**settings, "rounds": 1}).rounds) == 1


def test_what_others_wrote_stays(settings: Settings) -> None:
    """Neither pairs nor an adapter in the place of the federation's own are written over."""
    output = Path(settings["output"])
    data = output / "clients" / "client-0.jsonl"
    data.parent.mkdir(parents=True)
    shutil.copy(settings["data"], data)
    with pytest.raises(ConfigError, match="would be written over it or into it"):
        fpo.federate(**{**settings, "data": data})
    with pytest.raises(ConfigError, match="was not written by this program"):
        fpo.federate(**settings)
    assert data.read_bytes() == Path(settings["data"]).read_bytes()
    shutil.rmtree(data.parent)
    (output / "adapter").mkdir()
    (output / "adapter" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="was not written by this program"):
        fpo.federate(**settings)
    assert (output / "adapter" / "notes.txt").is_file()


def test_accuracies_of_training_pairs_are_called_so(settings: Settings) -> None:
    """With the default valid_fraction no pair is held out."""
    warned: list[str] = []
    sink = lambda event: event.kind == "warning" and warned.append(event.values["message"])  # noqa: E731
    few = {k: v for k, v in settings.items() if k != "valid_fraction"} | {"rounds": 1}
    result = fpo.federate(**few, sink=sink)
    assert {values["held_out"] for values in result.clients.values()} == {0.0}
    assert [row[1] for row in result.table().rows] == ["24 trained on"] * 2
    assert warned == [
        "client-0, client-1 held out no pairs, so accuracies are of those trained on: set "
        "valid_fraction"
    ]


def test_stopped_within_a_round(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that stay at home do not take the steps of the round twice."""
    from fpo.federation.client import Client

    settings |= {"layers": "random", "schedule": "constant", "warmup": 0.0}
    whole = fpo.federate(**settings)
    honest, cut = Client.train, tmp_path / "cut"

    def train(self: Client, sent: Any, number: int, *args: Any, **options: Any) -> Any:
        if number == 2 and self.name == "client-1":
            raise KeyboardInterrupt
        return honest(self, sent, number, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "train", train)
        with pytest.raises(KeyboardInterrupt):
            fpo.federate(**{**settings, "output": cut})
    fpo.federate(**{**settings, "output": cut, "resume": True})
    for folder in ("adapter", "clients/client-0/adapter", "clients/client-1/adapter"):
        before, after = adapter(whole.output / folder), adapter(cut / folder)
        for name, weight in before.items():
            np.testing.assert_array_equal(after[name], weight)

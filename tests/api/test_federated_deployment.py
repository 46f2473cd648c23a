"""The apps that Flower starts on machines of their own, here in one process."""

# pyright: reportMissingImports=false

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.app import Context, RecordDict
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg

from fpo.federation import deployment
from fpo.federation.apps import LocalGrid
from fpo.federation.deployment import make_client_app, make_server_app
from fpo_core.adapters.reader import load_adapter
from fpo_core.errors import ConfigError
from tests.api.conftest import Settings


class Fleet:
    """Settings files of two clients with eight pairs each, and of a server that has none."""

    def __init__(self, model: Any, lines: list[str], folder: Path) -> None:
        self.folder, self.lines = folder, lines
        self.shared = {"model": str(model), "objective": "dpo-norm", "backend": "torch", "rank": 2}
        self.shared |= {"max_seq_length": 64, "batch_size": 4, "rounds": 1, "local_iters": 1}
        self.shared["clients"] = 2

    def write(self, name: str, **values: Any) -> dict[str, Any]:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(self.shared | {"output": name} | values))
        return {"settings": str(path)}

    def clients(self, *, mods: Sequence[Any] = (), **values: Any) -> LocalGrid:
        nodes = {}
        for number in (1, 2):
            pairs = "".join(self.lines[number * 8 :][:8])
            (self.folder / f"pairs-{number}.jsonl").write_text(pairs)
            values |= {"data": f"pairs-{number}.jsonl", "valid_fraction": 0.25}
            nodes[number] = self.write(f"client-{number}", **values)
        return LocalGrid(make_client_app(mods), nodes)

    def serve(self, grid: LocalGrid, wrap: Any = None, **values: Any) -> dict[str, Any]:
        """What federation.json says."""
        app = make_server_app(wrap) if wrap else make_server_app()
        settings = self.write("server", **values)
        app(grid=grid, context=Context(1, 0, {}, RecordDict(), settings))
        return json.loads((self.folder / "server" / "federation.json").read_text())

    def moved(self) -> float:
        """The norm of the server's update; B starts at 0."""
        weights = load_adapter(self.folder / "server" / "adapter").weights
        return float(np.sqrt(sum((w**2).sum() for n, w in weights.items() if "lora_B" in n)))


@pytest.fixture
def fleet(small: Settings, tmp_path: Path) -> Fleet:
    lines = (Path(small["pairs"]) / "train.jsonl").read_text().splitlines(keepends=True)
    return Fleet(small["model"], lines, tmp_path)


def test_settings_come_from_files(fleet: Fleet) -> None:
    """A second start needs `resume`."""
    grid = fleet.clients()
    report = fleet.serve(grid)
    assert report["rounds"][0]["clients"] == [*report["clients"]] == ["client-1", "client-2"]
    assert fleet.moved() > 0
    with pytest.raises(ConfigError, match="set resume to go on"):
        fleet.serve(grid)
    report = fleet.serve(grid, resume=True, rounds=2)
    assert [facts["round"] for facts in report["rounds"]] == [1, 2]


def test_mods_of_flower(fleet: Fleet) -> None:
    """Clipping on clients: a wide norm changes nothing, a small one bounds what they send."""
    fleet.serve(fleet.clients())
    plain = fleet.moved()

    def clipped(mod: Any, wrap: Any = None) -> float:
        shutil.rmtree(fleet.folder / "server")
        report = fleet.serve(fleet.clients(mods=[mod]), wrap)
        assert [*report["clients"]] == ["client-1", "client-2"]
        return fleet.moved()

    assert clipped(LocalDpMod(1e6, 0.0, 1.0, 1e-5)) == pytest.approx(plain, rel=1e-6)
    norm = plain / 4
    assert norm / 2 < clipped(LocalDpMod(norm, 0.0, 1.0, 1e-5)) <= norm * 1.0001
    # Its norm comes with the server's message.
    wrap = lambda inner: DifferentialPrivacyClientSideFixedClipping(inner, 0.0, norm, 2)  # noqa: E731
    assert norm / 2 < clipped(fixedclipping_mod, wrap) <= norm * 1.0001


def test_masks_on_both_sides_or_none(fleet: Fleet) -> None:
    """Clients that mask send a server that does not ask for it no plain update."""
    grid = fleet.clients(secure_aggregation=True)
    report = fleet.serve(grid)
    (facts,) = report["rounds"]
    why = "secure_aggregation is True here, but False on the server: set it alike"
    assert facts["clients"] == []
    assert all(why in reason for reason in facts["left_out"].values())
    assert fleet.moved() == 0
    shutil.rmtree(fleet.folder / "server")
    report = fleet.serve(grid, secure_aggregation=True)
    assert report["rounds"][0]["clients"] == [*report["clients"]] == ["client-1", "client-2"]
    assert fleet.moved() > 0
    shutil.rmtree(fleet.folder / "server")
    with pytest.raises(ConfigError, match="takes no wrapper"):
        fleet.serve(grid, lambda inner: FedAvg(), secure_aggregation=True)


def test_an_earlier_federation_leaves_no_weights(fleet: Fleet) -> None:
    """Clients that keep their folders begin another federation with its own A, as the server."""

    def begin(seed: int) -> dict[str, np.ndarray]:
        fleet.shared["seed"] = seed
        fleet.serve(fleet.clients())
        server = load_adapter(fleet.folder / "server" / "adapter").weights
        client = load_adapter(fleet.folder / "client-1" / "adapter").weights
        shutil.rmtree(fleet.folder / "server")
        deployment._client.cache_clear()
        deployment._held.close()
        for name, weight in server.items():
            np.testing.assert_array_equal(client[name], weight)
        return server

    first, second = begin(0), begin(1)
    assert any(not np.array_equal(first[n], second[n]) for n in first if n.endswith("lora_A"))

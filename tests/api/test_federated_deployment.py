"""The apps that Flower starts on machines of their own, here in one process."""

# pyright: reportMissingImports=false

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from flwr.app import Context, RecordDict

from fpo.federation.apps import LocalGrid
from fpo.federation.deployment import make_client_app, make_server_app
from fpo_core.adapters.reader import load_adapter
from fpo_core.errors import ConfigError
from tests.api.conftest import Settings


def test_settings_come_from_files(small: Settings, tmp_path: Path) -> None:
    """Two clients and a server that has no pairs; a second start needs `resume`."""
    lines = (Path(small["pairs"]) / "train.jsonl").read_text().splitlines(keepends=True)
    shared = {"model": str(small["model"]), "objective": "dpo-norm", "backend": "torch", "rank": 2}
    shared |= {"max_seq_length": 64, "batch_size": 4, "rounds": 1, "local_iters": 1, "clients": 2}

    def write(name: str, **values: Any) -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(shared | {"output": name} | values))
        return str(path)

    nodes = {}
    for number in (1, 2):
        (tmp_path / f"pairs-{number}.jsonl").write_text("".join(lines[number * 8 :][:8]))
        values = {"data": f"pairs-{number}.jsonl", "valid_fraction": 0.25}
        nodes[number] = {"settings": write(f"client-{number}", **values)}
    grid = LocalGrid(make_client_app(), nodes)
    server = make_server_app()

    def start(**values: Any) -> None:
        settings: Any = {"settings": write("server", **values)}
        server(grid=grid, context=Context(1, 0, {}, RecordDict(), settings))

    start()
    report = json.loads((tmp_path / "server" / "federation.json").read_text())
    assert report["rounds"][0]["clients"] == [*report["clients"]] == ["client-1", "client-2"]
    weights = load_adapter(tmp_path / "server" / "adapter").weights
    assert max(np.abs(array).max() for name, array in weights.items() if "lora_B" in name) > 0
    with pytest.raises(ConfigError, match="set resume to go on"):
        start()
    start(resume=True, rounds=2)
    report = json.loads((tmp_path / "server" / "federation.json").read_text())
    assert [facts["round"] for facts in report["rounds"]] == [1, 2]

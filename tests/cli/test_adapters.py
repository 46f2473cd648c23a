"""Adapters on the command line: converted, gone on from, fused."""

from pathlib import Path

import pytest

from .conftest import Fpo
from .test_runs import FEW

SHAPE = ["--rank", 3, "--scale", 5, "--target-modules", "q_proj,v_proj", "--num-layers", 3]


@pytest.fixture
def trained(fpo: Fpo, world: list[object], tmp_path: Path) -> Path:
    """An adapter after two steps."""
    ran = fpo("train", *world, *FEW, *SHAPE, "--backend", "torch", "--output", tmp_path / "run")
    assert ran.code == 0, ran.err
    return tmp_path / "run"


def test_an_adapter_is_converted(fpo: Fpo, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "mlx"
    ran = fpo("convert", "adapter", trained, "--to", "mlx", "--out", out, "--json")
    assert ran.code == 0, ran.err
    assert (ran.json["rank"], ran.json["scale"], ran.json["to"]) == (3, 5, "mlx")
    assert {path.name for path in out.iterdir()} == {"adapter_config.json", "adapters.safetensors"}
    again = fpo("convert", "adapter", trained, "--out", out)
    assert again.code == 2
    assert "is there and not an empty folder" in again.err
    missing = fpo("convert", "adapter", tmp_path / "no", "--out", tmp_path / "x")
    assert "holds no adapter_config.json" in missing.err
    assert not (tmp_path / "x").exists()

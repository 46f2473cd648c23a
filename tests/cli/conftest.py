"""The command line run in this process, on the quickstart world."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fpo.world import assets
from fpo_convert.sae import convert_sae


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout, which must be one JSON object and nothing else."""
        return json.loads(self.out)


Fpo = Callable[..., Ran]
PROGRAM = [sys.executable, "-c", "import tests.conftest; from fpo_cli.main import main; main()"]
"""`fpo` in a process of its own, with the BLAS of this one, which rounds alike."""


def environment() -> dict[str, str]:
    """This process's, for one that imports what it does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of one test: in a shared one, a store that another test left would be found."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def fpo(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cache: Path) -> Fpo:
    """Runs `fpo` with arguments, through `main` with its translation of errors."""
    from fpo_cli.main import main

    monkeypatch.setenv("FPO_CACHE", str(cache))

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["fpo", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capfd.readouterr()
        return Ran(int(stopped.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all tests of a session share."""
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="session")
def sae(shared: Path) -> Path:
    """The world's autoencoder, converted."""
    path = shared / "sae.safetensors"
    convert_sae(assets().sae, path)
    return path


@pytest.fixture
def world(sae: Path) -> list[object]:
    """Options that name the world's model, pairs and autoencoder, few and small."""
    return [*model_and_data(), "--sae", sae]


def model_and_data() -> list[object]:
    """The world's model and its first pairs."""
    pairs = ["--data", assets().pairs, "--max-rows", 12, "--max-seq-length", 64]
    return ["--model", assets().model, *pairs]

"""Settings of small runs on the embedded world, and one run that all tests may read."""

import json
from pathlib import Path
from typing import Any

import pytest

import fpo
from fpo.world import assets

Settings = dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenised rows and shared stores go here."""
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPO_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def sae(cache: Path) -> Path:
    """The world's autoencoder, converted."""
    return fpo.convert_sae(source=assets().sae, out=cache / "sae.safetensors").out


@pytest.fixture(scope="session")
def small(sae: Path) -> Settings:
    """A model, a few pairs and an autoencoder: a training run of two steps."""
    return {
        "model": assets().model,
        "pairs": assets().pairs,
        "sae": sae,
        "max_rows": 8,
        "max_seq_length": 64,
        "backend": "torch",
    }


@pytest.fixture(scope="session")
def steps(cache: Path) -> Settings:
    """What makes a run quick."""
    lines = (Path(assets().pairs) / "valid.jsonl").read_text().splitlines()[:2]
    text = cache / "text.txt"
    text.write_text("\n\n".join(json.loads(line)["chosen"][0]["content"] for line in lines))
    quick = {"iters": 2, "val_pairs": 2, "steps_per_report": 1, "steps_per_eval": 1, "rank": 2}
    return quick | {"text": text}


@pytest.fixture(scope="session")
def events() -> list[fpo.Event]:
    """What the sink of `run` was called with."""
    return []


@pytest.fixture(scope="session")
def run(cache: Path, small: Settings, steps: Settings, events: list[fpo.Event]) -> fpo.TrainingRun:
    """A training run, its `output` in the shared folder; no store of another test serves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FPO_CACHE", str(cache / "cache of the run"))
        return fpo.train(**small, **steps, output=cache / "run", sink=events.append)

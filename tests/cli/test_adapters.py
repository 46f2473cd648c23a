"""Adapters on the command line: converted, gone on from, fused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fpo.world import assets
from fpo_core.adapters.lora import place_of
from fpo_core.adapters.reader import load_adapter
from fpo_core.adapters.writer import save_adapter
from fpo_core.models.layout import Layout
from tests.backends.families import write_quantised

from .conftest import Fpo
from .test_runs import FEW

SHAPE = ["--rank", 3, "--scale", 5, "--target-modules", "q_proj,v_proj", "--num-layers", 3]


@pytest.fixture
def trained(fpo: Fpo, world: list[object], tmp_path: Path) -> Path:
    """An adapter after two steps."""
    ran = fpo("train", *world, *FEW, *SHAPE, "--backend", "torch", "--output", tmp_path / "run")
    assert ran.code == 0, ran.err
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("backend", "kind"), [("torch", "lora"), ("torch", "dora"), ("mlx", "dora")]
)
def test_a_run_goes_on_from_an_adapter_in_that_adapters_shape(
    fpo: Fpo, world: list[object], tmp_path: Path, backend: str, kind: str
) -> None:
    use = [*world, *FEW, "--backend", backend, "--json"]
    first = fpo("train", *use, *SHAPE, "--fine-tune-type", kind, "--output", tmp_path / "a")
    assert first.code == 0, first.err
    ran = fpo("train", *use, "--adapter", tmp_path / "a", "--output", tmp_path / "b")
    assert ran.code == 0, ran.err
    # The adapter is the reference: the loss is log 2 again, and the accuracy is the adapter's
    assert ran.json["loss_first"] == pytest.approx(0.693147, abs=1e-4)
    assert ran.json["before"]["raw_accuracy"] == first.json["after"]["raw_accuracy"]
    saved = [json.loads((tmp_path / n / "adapter_config.json").read_text()) for n in "ab"]
    assert saved[1]["use_dora"] == (kind == "dora")
    for key in ("r", "lora_alpha", "target_modules", "layers_to_transform", "fine_tune_type"):
        assert saved[0][key] == saved[1][key]
    a, b = (load_adapter(tmp_path / n).weights for n in "ab")
    assert all((a[name] != b[name]).any() for name in a if name.endswith("lora_B"))
    # Two more steps of Adam move a weight by about twice the rate from where it began, at most
    assert max(np.abs(a[name] - b[name]).max() for name in a) <= 2.1 * 0.01
    ran = fpo("train", *use, "--adapter", tmp_path / "a", "--rank", 4, "--output", tmp_path / "c")
    assert ran.code == 2
    assert "rank is 4" in ran.err


def with_adapter(command: str, out: Path, data: list[object]) -> list[object]:
    """A command on an adapter, and what it needs."""
    return {
        "eval": [*data, "--samples", 0, "--beta", 1],
        "generate": ["--prompt", "hello", "--max-tokens", 2],
        "fuse": ["--out", out],
    }[command]


@pytest.mark.parametrize("backend", ["torch", "mlx"])
@pytest.mark.parametrize("command", ["eval", "generate", "fuse"])
def test_a_base_that_changed_since_is_told_of(
    fpo: Fpo, world: list[object], trained: Path, tmp_path: Path, command: str, backend: str
) -> None:
    more = ["--adapter", trained, "--backend", backend]
    moved = Path(shutil.copytree(assets().model, tmp_path / "moved"))
    use = [command, "--model", moved, *more]
    same = fpo(*use, *with_adapter(command, tmp_path / "same", world[2:]))
    assert (same.code, "was trained on" in same.err) == (0, False), same.err
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"note": "other"}))
    other = fpo(*use, *with_adapter(command, tmp_path / "other", world[2:]))
    assert other.code == 0, other.err
    assert f"the adapter {trained} was trained on" in " ".join(other.err.split())


def test_modules_that_an_adapter_leaves_out_are_told_of(
    fpo: Fpo, world: list[object], trained: Path, tmp_path: Path
) -> None:
    adapter = load_adapter(trained)
    left = adapter.places()[0]
    weights = {n: w for n, w in adapter.weights.items() if place_of(n) != left}
    cut = dataclasses.replace(adapter, weights=weights)
    save_adapter(tmp_path / "cut", cut, base_model="", layout=Layout())
    use = [*world, *FEW, "--backend", "torch", "--json"]
    ran = fpo("train", *use, "--adapter", tmp_path / "cut", "--output", tmp_path / "b")
    assert ran.code == 0, ran.err
    assert "the adapter leaves out 1 modules" in ran.err
    assert ran.json["loss_first"] == pytest.approx(0.693147, abs=1e-4)
    assert left in load_adapter(tmp_path / "b").places()


def test_a_quantised_base_trains_adapters_alone_and_warns(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    base = write_quantised(assets().model, tmp_path / "base")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(assets().model / file, base)
    text = tmp_path / "text.txt"
    text.write_text("The red lamp is here.\n")
    use = ["--model", base, *world[2:], *FEW, "--text", text, "--json", "--backend"]
    ran = fpo("train", *use, "mlx", "--output", tmp_path / "a")
    assert ran.code == 0, ran.err
    assert "the model is quantised: its activations differ" in ran.err
    assert ran.json["loss_first"] == pytest.approx(0.693147, abs=1e-4)
    assert ran.json["after"]["fpo/kl_rejected"] > 0
    refused = fpo("train", *use, "mlx", "--fine-tune-type", "full", "--output", tmp_path / "b")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "are quantised and have no gradient" in refused.err
    refused = fpo("train", *use, "torch", "--output", tmp_path / "b")
    assert refused.code == 2
    assert "use the mlx backend, or the unquantised model" in refused.err
    assert not (tmp_path / "b").exists()


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


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_fuse(fpo: Fpo, trained: Path, tmp_path: Path, backend: str) -> None:
    out, model = tmp_path / "fused", assets().model
    use = ["--backend", backend, "--json"]
    ran = fpo("fuse", "--model", model, "--adapter", trained, "--out", out, *use)
    assert ran.code == 0, ran.err
    assert ran.json["dtypes"] == ["float32"]
    assert ran.json["check"]["largest"] < 1e-4 < ran.json["check"]["moved"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (model / name).read_bytes()
    ask = ["--prompt", "Tell me about the red lamp.", "--max-tokens", 12, "--temp", 0, *use]
    merged = fpo("generate", "--model", out, *ask).json
    unmerged = fpo("generate", "--model", model, "--adapter", trained, *ask).json
    assert merged["completions"] == unmerged["completions"]
    for folder in (trained, out):
        card = (folder / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: ")
        assert "SHA-256 of its weights" in card
        assert str(tmp_path) not in card
        assert str(Path.home()) not in card
        assert (folder / "curves.png").is_file()
    again = fpo("fuse", "--model", model, "--adapter", trained, "--out", out, *use)
    assert again.code == 2
    assert "is there and not an empty folder" in again.err


def test_a_merge_that_loses_the_adapter_leaves_nothing(
    fpo: Fpo, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpo_core.adapters.merge.merge", lambda weight, adapter, place: weight)
    before = set(tmp_path.iterdir())
    ran = fpo("fuse", "--model", assets().model, "--adapter", trained, "--out", tmp_path / "f")
    assert (ran.code, ran.err.count("fpo: ")) == (2, 1)
    assert "logits differ from the adapter's" in ran.err
    assert set(tmp_path.iterdir()) == before


def test_fuse_of_a_quantised_base(fpo: Fpo, trained: Path, tmp_path: Path) -> None:
    base = write_quantised(assets().model, tmp_path / "base")
    use = ["--model", base, "--adapter", trained, "--out", tmp_path / "out", "--backend"]
    ran = fpo("fuse", *use, "mlx", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["dequantised"]
    assert ran.json["check"]["apart"] < 0.01 * ran.json["check"]["moved"]
    refused = fpo("fuse", *use[:-2], tmp_path / "no", "--backend", "torch")
    assert "use the mlx backend, or the unquantised model" in refused.err
    missing = fpo("fuse", "--model", base, "--out", tmp_path / "no")
    assert "adapter is not set" in missing.err
    assert not (tmp_path / "no").exists()

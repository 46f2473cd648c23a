"""`fpo sae train` on the quickstart's world, on both backends."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import fpo as api
from fpo import auto_sae
from fpo.world import assets
from fpo_core.arrays import numpy_ops
from fpo_core.sae.sae import load_sae
from tests.helpers import BACKENDS

from .conftest import PROGRAM, Fpo, environment, model_and_data
from .test_errors import refused
from .test_several_processes import launcher

MODEL = ["--model", assets().model, "--data", assets().pairs]
FEW = ["--max-rows", 40, "--max-seq-length", 48, "--layer", 1, "--d-sae", 64, "--k", 8]
MANY = ["--max-rows", 200, "--tokens", 9000]
FEW += ["--tokens", 4000, "--batch-tokens", 200, "--save-every", 4, "--steps-per-report", 5]
SETTINGS = {"model": str(assets().model), "data": str(assets().pairs), "max_rows": 40}
SETTINGS |= {"max_seq_length": 48, "layer": ("1",), "d_sae": 64, "k": 8, "tokens": 4000}
SETTINGS |= {"batch_tokens": 200, "save_every": 4, "backend": "torch"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_result_is_measured_and_trains(fpo: Fpo, backend: str, tmp_path: Path) -> None:
    out = tmp_path / "sae.safetensors"
    ran = fpo("sae", "train", *MODEL, *FEW, "--backend", backend, "--output", out, "--json")
    assert ran.code == 0, ran.err
    (sae,) = ran.json["saes"]
    assert sae["hook"] == "blocks.1.hook_resid_post"
    assert 0 < sae["fit"]["variance_unexplained"] < 1
    assert abs(sae["fit"]["l0"] / 8 - 1) < 0.2
    assert sae["fit"]["ce_recovered"] > 0.5
    assert sae["fit"]["recovered"]["kl"] > 0
    made = load_sae(out)
    assert made.architecture == "jumprelu"
    assert len(set(made.threshold.tolist())) == 1
    assert made.untrained_tokens == ("special",)
    assert (tmp_path / "sae-run" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "sae-run" / "state").exists()
    trained = fpo(
        *("train", *model_and_data(), "--sae", out, "--backend", backend, "--iters", 1),
        *("--output", tmp_path / "run", "--no-preflight", "--json"),
    )
    assert trained.code == 0, trained.err


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_several_layers_from_one_pass_and_sae_lens_folders(
    fpo: Fpo, tmp_path: Path, architecture: str
) -> None:
    few = [*FEW, "--layer", "0,2", "--architecture", architecture, "--matryoshka", 2]
    out = tmp_path / "sae.safetensors"
    ran = fpo("sae", "train", *MODEL, *few, "--backend", "torch", "--output", out, "--json")
    assert ran.code == 0, ran.err
    files = [tmp_path / f"sae-{layer}.safetensors" for layer in (0, 2)]
    assert [sae["file"] for sae in ran.json["saes"]] == list(map(str, files))
    alone = fpo(
        *("sae", "train", *MODEL, *few, "--layer", "2", "--backend", "torch"),
        *("--output", tmp_path / "alone.safetensors", "--json"),
    )
    assert alone.code == 0, alone.err
    folder = tmp_path / "lens"
    exported = fpo("convert", "sae", files[0], "--to", "sae-lens", "--out", folder)
    assert exported.code == 0, exported.err
    back = fpo("convert", "sae", folder, "--out", tmp_path / "back.safetensors")
    assert back.code == 0, back.err
    x = np.random.default_rng(0).normal(size=(20, 128)).astype(np.float32) * 3
    here, there = (
        load_sae(p).encode(numpy_ops, x) for p in (files[0], tmp_path / "back.safetensors")
    )
    np.testing.assert_allclose(there, here, atol=1e-6)


def test_a_dry_run_says_what_it_takes_and_writes_nothing(fpo: Fpo, tmp_path: Path) -> None:
    out = tmp_path / "sae.safetensors"
    ran = fpo(
        *(
            "sae",
            "train",
            *MODEL,
            *FEW,
            "--backend",
            "torch",
            "--output",
            out,
            "--dry-run",
            "--json",
        )
    )
    assert ran.code == 0, ran.err
    assert ran.json["memory"] > ran.json["buffer"] > 0
    assert ran.json["steps"] == 20
    assert list(tmp_path.iterdir()) == []


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "sae.safetensors")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stopped_run_goes_on_bit_for_bit(backend: str, tmp_path: Path) -> None:
    settings = SETTINGS | {"backend": backend, "memory": 1, "cache": str(tmp_path / "cache")}
    api.train_sae(**settings, output=tmp_path / "whole" / "sae.safetensors")
    for at in (3, 9, 14):
        steps = iter(range(100))
        with pytest.raises(api.StoppedError, match="stopped after step"):
            api.train_sae(
                **settings,
                output=tmp_path / "parts" / "sae.safetensors",
                resume=at > 3,
                stop=lambda at=at, steps=steps: 2 if next(steps) >= at % 5 else None,
            )
        assert load_sae(tmp_path / "parts" / "sae.safetensors").d_sae == 64
    api.train_sae(**settings, output=tmp_path / "parts" / "sae.safetensors", resume=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value)


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    output = tmp_path / "sae.safetensors"
    with pytest.raises(api.StoppedError):
        api.train_sae(**SETTINGS, output=output, stop=lambda: 2)
    with pytest.raises(api.ConfigError, match="k was 8, is 9"):
        api.train_sae(**SETTINGS | {"k": 9}, output=output, resume=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_processes_are_one(fpo: Fpo, backend: str, tmp_path: Path) -> None:
    """Bar: within 1e-5; on MLX 4e-5 after 20 steps, where sums are of another order."""
    arguments = ["sae", "train", *MODEL, *FEW, "--backend", backend, "--json"]
    alone = fpo(*arguments, "--output", tmp_path / "alone" / "sae.safetensors")
    assert alone.code == 0, alone.err
    ring = [sys.executable, "-m", "tests.rings", *PROGRAM]
    command = [*(ring if backend == "mlx" else launcher("torchrun")), *arguments]
    ran = subprocess.run(
        list(map(str, [*command, "--output", tmp_path / "both" / "sae.safetensors"])),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(json.loads(ran.stdout)["saes"]) == 1
    both, bar = weights(tmp_path / "both"), 1e-5 if backend == "torch" else 4e-5
    for part, value in weights(tmp_path / "alone").items():
        np.testing.assert_allclose(both[part], value, rtol=1e-4, atol=bar * np.abs(value).max())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--layer", "9"], "layer is 9, and the model has 4 blocks"),
        (["--layer", "x"], "layer names 'x'"),
        (["--layer", "1,1"], "layer names a block twice"),
        (["--k", "100"], "k is 100 and d_sae 64"),
        (["--memory", "1", "--batch-tokens", "3000", *MANY], "lower batch_tokens"),
        (["--output", "sae.bin"], "ends in .safetensors"),
        (["--resume"], "nothing to go on from"),
        (["--text", "absent.txt"], "no text file"),
    ],
)
def test_what_cannot_be_is_refused(
    fpo: Fpo, tmp_path: Path, options: list[object], reason: str
) -> None:
    output = ["--output", tmp_path / "sae.safetensors"]
    ran = fpo("sae", "train", *MODEL, *FEW, *output, *options)
    refused(ran, reason)


def test_auto_trains_one_where_none_is_published_and_keeps_it(fpo: Fpo, tmp_path: Path) -> None:
    train = ["train", *model_and_data(), "--sae", "auto", "--iters", 1, "--no-preflight"]
    train += ["--cache", tmp_path / "cache", "--backend", "torch", "--json"]
    refused(fpo(*train, "--output", tmp_path / "a"), "set yes")
    ran = fpo(*train, "--output", tmp_path / "a", "--yes")
    assert ran.code == 0, ran.err
    (made,) = (tmp_path / "cache" / "saes").glob("*.safetensors")
    stamp = made.stat().st_mtime_ns
    again = fpo(*train, "--output", tmp_path / "b", "--yes")
    assert again.code == 0, again.err
    assert made.stat().st_mtime_ns == stamp


def test_auto_reads_where_the_trained_blocks_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default the block after four fifths is read, 8 of 10, which the last one cannot move."""
    deep = tmp_path / "deep"
    shutil.copytree(assets().model, deep)
    described = json.loads((deep / "config.json").read_text())
    (deep / "config.json").write_text(json.dumps(described | {"num_hidden_layers": 10}))
    asked = []

    def train_sae(config: api.SaeTrainConfig, sink: object) -> None:
        asked.append(config.layer)
        raise api.SaeError("enough")

    monkeypatch.setattr(auto_sae, "train_sae", train_sae)
    settings = {"model": str(deep), "data": str(assets().pairs), "sae": "auto", "yes": True}
    settings |= {"cache": str(tmp_path / "cache"), "output": str(tmp_path / "run")}
    for blocks in (-1, 2, 1):
        with pytest.raises(api.SaeError, match="enough"):
            api.train(**settings, num_layers=blocks, backend="torch")
    assert asked == [None, None, ("9",)]


def test_only_training_knows_auto(fpo: Fpo) -> None:
    refused(fpo("eval", *model_and_data(), "--sae", "auto"), "which train alone")

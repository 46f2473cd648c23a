"""Under --json, stdout is one JSON object and nothing else, for every command."""

import json
from pathlib import Path
from typing import Any

import pytest

from fpo.results import to_json
from fpo.world import assets

from .conftest import Fpo, model_and_data


def test_sae_info_and_convert(fpo: Fpo, tmp_path: Path) -> None:
    out = tmp_path / "w.safetensors"
    ran = fpo("convert", "sae", assets().sae, "--out", out, "--json")
    assert (ran.code, ran.json["command"], ran.json["d_sae"]) == (0, "convert sae", 1024)
    ran = fpo("sae", "info", out, "--verify", "--json")
    assert (ran.json["verified"], ran.json["hook"]) == (True, "blocks.2.hook_resid_post")
    spoken = fpo("sae", "info", out)
    assert "blocks.2.hook_resid_post" in spoken.out
    assert spoken.err == ""


def test_an_autoencoder_goes_to_sae_lens_and_back(fpo: Fpo, sae: Path, tmp_path: Path) -> None:
    folder, back = tmp_path / "exported", tmp_path / "back.safetensors"
    ran = fpo("convert", "sae", sae, "--to", "sae-lens", "--out", folder, "--json")
    assert (ran.code, ran.json["command"], ran.json["out"]) == (0, "convert sae", str(folder))
    assert sorted(ran.json["files"]) == sorted(path.name for path in folder.iterdir())
    assert ran.json["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    ran = fpo("convert", "sae", folder, "--out", back, "--json")
    first = fpo("sae", "info", sae, "--json").json
    assert ran.json["payload_sha256"] == first["payload_sha256"]
    spoken = fpo("convert", "sae", sae, "--to", "sae-lens", "--out", tmp_path / "again")
    assert (spoken.code, spoken.err) == (0, "")
    assert "for SAELens" in spoken.out


def flat(fit: dict[str, Any]) -> dict[str, float]:
    """A fit with what it recovers among its other numbers."""
    return {**fit, **fit["recovered"], "recovered": 0.0}


def test_sae_check(fpo: Fpo, sae: Path) -> None:
    options = [sae, "--model", assets().model, "--data", assets().pairs, "--rows", 12]
    found = [
        fpo("sae", "check", *options, "--backend", name, "--json").json for name in ("torch", "mlx")
    ]
    for ran in found:
        assert (ran["command"], ran["verdict"], ran["pairs"]) == ("sae check", "fits", 12)
        assert ran["hook"] == "blocks.2.hook_resid_post"
        assert 0 < ran["chat"]["variance_unexplained"] < ran["raw"]["variance_unexplained"] < 0.1
        lost = {
            name: ran["raw"]["recovered"][name] for name in ("ce_clean", "ce_spliced", "ce_zero")
        }
        spliced = lost["ce_zero"] - lost["ce_spliced"]
        share = spliced / (lost["ce_zero"] - lost["ce_clean"])
        assert ran["raw"]["ce_recovered"] == pytest.approx(share)
    for kind in ("raw", "chat"):
        torch, mlx = (flat(ran[kind]) for ran in found)
        assert torch == pytest.approx(mlx, rel=1e-3)
    elsewhere = fpo("sae", "check", *options, "--hook", "blocks.2.hook_attn_out", "--json").json
    assert elsewhere["verdict"] != "fits"
    assert elsewhere["chat"]["variance_unexplained"] > 0.4
    spoken = fpo("sae", "check", *options)
    assert "variance unexplained" in spoken.out
    assert "fits: " in spoken.out


def test_data_inspect(fpo: Fpo) -> None:
    ran = fpo("data", "inspect", *model_and_data(), "--rows", 2, "--start", 1, "--json")
    assert ran.json["report"]["splits"]["train"]["kept"] == 12
    row = ran.json["rows"][1]
    assert row["position"] == 2
    for side in row["sides"]:
        kinds = [segment["kind"] for segment in side["segments"]]
        assert kinds[:2] == ["prompt", "completion"]
        assert [segment["mask"] for segment in side["segments"]][:2] == [0, 1]
    spoken = fpo("data", "inspect", *model_and_data(), "--split", "valid")
    assert "prompt" in spoken.out
    assert "train: 12 of 12 pairs" in spoken.out


@pytest.mark.parametrize(("options", "word"), [(["--start", 99], "start is 99")])
def test_data_inspect_beyond_the_end(fpo: Fpo, options: list[object], word: str) -> None:
    ran = fpo("data", "inspect", *model_and_data(), *options)
    assert ran.code == 2
    assert word in ran.err


def test_data_augment(fpo: Fpo, tmp_path: Path) -> None:
    data = ["--data", assets().pairs, "--judge", "world", "--max-rows", 4]
    ran = fpo("data", "augment", *data, "--out", tmp_path / "a", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["splits"]["train"]["rows"] == 8
    spoken = fpo("data", "augment", *data, "--out", tmp_path / "b", "--no-swap")
    assert "train: 8 rows of 4 pairs; 0 tied and 0 without scores left out" in spoken.out
    refused = fpo("data", "augment", *data, "--out", tmp_path / "a")
    assert refused.code == 2
    assert "is there and not an empty folder" in refused.err


def test_doctor(fpo: Fpo, tmp_path: Path) -> None:
    found = fpo("doctor", "--cache", tmp_path, "--json").json
    assert found["auto"] in ("mlx", "torch")
    for backend in ("mlx", "torch"):
        assert found["backends"][backend]["installed"]
        assert "cpu" in found["backends"][backend]["devices"]
    assert found["cache"] == {"folder": str(tmp_path), "bytes": 0}
    spoken = fpo("doctor", "--backend", "torch")
    assert "torch:" in spoken.out
    assert "mlx:" not in spoken.out


def test_doctor_tests_itself(fpo: Fpo) -> None:
    ran = fpo("doctor", "--self-test", "--json")
    assert ran.code == 0
    for name in ("mlx", "torch"):
        report = ran.json["self_test"][name]
        assert report["passed"]
        assert len(report["checks"]) == 32


def test_a_failed_self_test_reports_and_exits_with_2(
    fpo: Fpo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fpo_core.backend import selftest

    content = json.loads(selftest.GOLDEN.read_text())
    content["expected"]["topk"]["losses"][0] *= 1.001
    altered = tmp_path / "golden.json"
    altered.write_text(json.dumps(content))
    monkeypatch.setattr(selftest, "GOLDEN", altered)
    ran = fpo("doctor", "--self-test", "--backend", "torch", "--json")
    assert ran.code == 2
    assert not ran.json["self_test"]["torch"]["passed"]
    assert "FAILED topk losses" in ran.err
    assert "self-test of torch failed" in ran.err.splitlines()[-1]


def test_doctor_names_what_is_missing(fpo: Fpo, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "peft" else real(name, *a)
    )
    assert "torch: not usable (missing peft); get it with: pip install" in fpo("doctor").out


def test_reference_is_shared_through_the_cache_and_resumed(
    fpo: Fpo, world: list[object], tmp_path: Path
) -> None:
    cache = ["--cache", tmp_path, "--backend", "torch", "--json"]
    first = fpo("reference", *world, *cache).json
    assert (first["pairs"], first["new_pairs"]) == (24, 24)
    assert Path(first["reference"]).is_relative_to(tmp_path)
    assert fpo("reference", *world, *cache).json["new_pairs"] == 0
    ran = fpo("train", *world, *cache, "--output", tmp_path / "run", "--iters", 1)
    assert ran.json["reference"] == first["reference"]


def test_numbers_that_are_not_finite_and_foreign_values_become_plain() -> None:
    import numpy as np

    text = to_json({"a": float("nan"), "b": np.float32(0.5), "c": (1, Path("x")), "d": True})
    assert json.loads(text) == {"a": None, "b": 0.5, "c": [1, "x"], "d": True}

"""Every function of `fpo` on the embedded world: results, their JSON and their tables."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import fpo
from fpo.world import assets

from .conftest import Settings


def checked(result: fpo.Result) -> dict:
    """The JSON of a result, once it was seen to agree with the mapping and to have a table."""
    values = json.loads(result.to_json())
    assert values.keys() == result.to_mapping().keys()
    assert result._repr_html_().count("<table>") == result._repr_html_().count("</table>") > 0
    return values


def test_train(run: fpo.TrainingRun, cache: Path) -> None:
    values = checked(run)
    assert (values["steps"], values["output"]) == (2, str(cache / "run"))
    assert (run.output / "adapter_model.safetensors").is_file()
    assert run.before is not None
    assert run.metrics["pairs"] == 2
    assert run.before.to_mapping()["fpo/kl_chosen"] == 0.0
    assert [row[0] for row in run.table().rows][:2] == ["raw accuracy", "reward accuracy"]
    assert [e["step"] for e in run.events if e["kind"] == "train"] == [1, 2]
    assert len(run.plot().axes) == 4


def test_preflight_writes_nothing(small: Settings, steps: Settings, tmp_path: Path) -> None:
    report = fpo.preflight(**small, **steps, output=tmp_path / "run")
    assert (checked(report)["steps"], report.estimate.pairs) == (2, 4)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(fpo.ConfigError, match="call preflight"):
        fpo.train(**small, output=tmp_path / "run", dry_run=True)


def test_evaluate_reads_the_store_of_the_run(run: fpo.TrainingRun, small: Settings) -> None:
    result = fpo.evaluate(**small, adapter=run.output, val_pairs=2, samples=1, max_tokens=4)
    values = checked(result)
    assert values["after"]["rewards/margins"] == pytest.approx(run.metrics["rewards/margins"])
    assert (values["verdict"], result.reference) == (result.verdict, run.reference)
    assert result.table().head == ("", "before", "after")


def test_evaluate_alone(small: Settings) -> None:
    result = fpo.evaluate(**small, val_pairs=2, samples=0)
    assert result.before is None
    assert "reward accuracy" not in [label for label, _ in result.table().rows]


def test_generate(run: fpo.TrainingRun) -> None:
    result = fpo.generate(
        model=assets().model,
        adapter=run.output,
        prompt="hello",
        max_tokens=3,
        samples=2,
        backend="torch",
    )
    assert len(checked(result)["completions"]) == len(result.texts) == 2
    assert all(completion.tokens <= 3 for completion in result.completions)


def test_reference_is_complete_after_once(small: Settings, tmp_path: Path) -> None:
    settings = small | {"reference": tmp_path / "store"}
    first, second = fpo.reference(**settings), fpo.reference(**settings)
    assert (first.pairs, first.new_pairs, second.new_pairs) == (16, 16, 0)
    assert checked(second)["bytes"] == second.bytes > 0


def test_autoencoders(sae: Path, small: Settings, tmp_path: Path) -> None:
    info = fpo.sae_info(file=sae)
    assert checked(info)["d_sae"] == 1024
    fit = fpo.check_sae(sae=sae, model=assets().model, data=assets().pairs, rows=4, backend="torch")
    assert checked(fit)["verdict"] == fit.verdict == "fits"
    assert fit.table().head == ("", "raw", "chat")
    sides = {"positive": "thank you\n", "negative": "go away\n"}
    for name, text in sides.items():
        (tmp_path / name).write_text(text)
    ranking = fpo.rank_features(
        model=assets().model,
        sae=sae,
        **{name: tmp_path / name for name in sides},
        out=tmp_path / "weights.json",
        top=3,
        backend="torch",
    )
    assert len(checked(ranking)["features"]) == len(ranking.table().rows) == 3
    assert (tmp_path / "weights.json").is_file()
    exported = fpo.convert_sae(source=sae, out=tmp_path / "lens", to="sae-lens")
    assert checked(exported)["architecture"] == "topk"


def test_an_autoencoder_of_another_model(small: Settings, steps: Settings, tmp_path: Path) -> None:
    """A warning in training, evaluation and the check of the fit; an error where strict."""
    other = fpo.convert_sae(
        source=assets().sae, out=tmp_path / "sae.safetensors", model_name="google/gemma-2-2b"
    ).out
    settings = {**small, "sae": other, "backend": "torch"}
    seen: list[fpo.Event] = []
    fpo.train(**settings, **steps, output=tmp_path / "run", sink=seen.append)
    check = {"model": assets().model, "data": assets().pairs, "rows": 4, "backend": "torch"}
    fpo.check_sae(sae=other, **check, sink=seen.append)
    told = [str(event) for event in seen if "trained on google/gemma-2-2b" in str(event)]
    assert len(told) == 2
    with pytest.raises(fpo.FpoError, match="was trained on google/gemma-2-2b, and this one is"):
        fpo.train(**settings, **steps, output=tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_published_autoencoders() -> None:
    listed = fpo.list_saes(model="google/gemma-2-2b", rows=5)
    assert len(listed.table().rows) == 5
    assert len(listed.saes) > 1500
    assert listed.table().below
    assert checked(listed)["saes"][0]["recommended"]
    assert listed.table().rows[0][0] == "→"


def test_fuse_and_convert_an_adapter(run: fpo.TrainingRun, tmp_path: Path) -> None:
    fused = fpo.fuse(
        model=assets().model, adapter=run.output, out=tmp_path / "fused", backend="torch"
    )
    assert checked(fused)["out"] == str(tmp_path / "fused")
    assert (fused.out / "model.safetensors").is_file()
    converted = fpo.convert_adapter(source=run.output, out=tmp_path / "peft", to="peft")
    assert checked(converted)["rank"] == 2
    assert not (converted.out / "adapters.safetensors").exists()


def test_inspect_data() -> None:
    result = fpo.inspect_data(model=assets().model, data=assets().pairs, max_rows=4, rows=2)
    assert len(checked(result)["rows"]) == 2
    assert result.report.splits["train"].kept == 4


def test_quickstart(tmp_path: Path) -> None:
    result = fpo.quickstart(
        output=tmp_path / "q", max_rows=8, iters=1, batch_size=2, samples=2, backend="torch"
    )
    assert checked(result)["steps"] == 1
    assert len(result.samples) == 2
    assert result.picture.read_bytes()[:4] == b"\x89PNG"
    assert set(result.metrics["oracle_scores"]) >= {"preferred"}


def test_compare(small: Settings, steps: Settings, tmp_path: Path) -> None:
    file = tmp_path / "shared.json"  # JSON is YAML
    shared = {k: str(v) if isinstance(v, Path) else v for k, v in (small | steps).items()}
    shared["data"] = shared.pop("pairs")
    file.write_text(json.dumps(shared))
    settings = {"settings": file, "output": tmp_path / "out", "samples": 1, "max_tokens": 2}
    result = fpo.compare(**settings, objectives="fpo,dpo", eval_pairs=2)
    assert [row["variant"] for row in result.rows] == ["fpo", "dpo"]
    assert [row[0] for row in result.table().rows] == ["start", "fpo", "dpo"]
    assert len(result.plot().axes) == 4
    assert checked(result)["cost"].keys() == result.cost.keys()
    assert {"compare.md", "compare.csv", "compare.json", "compare.png"} <= {
        path.name for path in result.output.iterdir()
    }


def test_doctor_and_self_test() -> None:
    found = fpo.doctor(backend="torch")
    assert checked(found)["backends"]["torch"]["installed"]
    report = fpo.self_test(backend="torch")
    assert report.passed
    assert checked(report)["passed"] is True


@pytest.mark.parametrize("workflow", [fpo.chat, fpo.serve])
@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_talk_on_a_base_that_changed_since_is_told_of(
    workflow: Any, backend: str, run: fpo.TrainingRun, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(assets().model, tmp_path / "moved"))
    said: dict[str, list[str]] = {}
    for name in ("same", "other"):
        seen: list[fpo.Event] = []
        workflow(model=moved, adapter=run.output, backend=backend, sink=seen.append)
        said[name] = [e.values["message"] for e in seen if e.kind == "warning"]
        config = json.loads((moved / "config.json").read_text())
        (moved / "config.json").write_text(json.dumps(config | {"note": "other"}))
    assert not said["same"]
    assert f"the adapter {run.output} was trained on" in said["other"][0]
